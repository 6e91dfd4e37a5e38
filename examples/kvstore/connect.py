"""What the examples share: where the servers are, and a plain sentence when they are not there."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from kvstore.client import AsyncClient, EtcdError

ENDPOINTS = "localhost:2379"


def run(story: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Tell ``story`` to the servers named on the command line; `make run` starts some."""
    parser = argparse.ArgumentParser(description=story.__doc__)
    parser.add_argument("endpoints", nargs="?", default=ENDPOINTS, help="HOST:PORT,HOST:PORT,...")
    endpoints = parser.parse_args().endpoints.split(",")

    async def connected() -> None:
        async with AsyncClient(endpoints) as client:
            await story(client)

    try:
        asyncio.run(connected())
    except (EtcdError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}. Is kvstore running there? Start it with `make run`.")
