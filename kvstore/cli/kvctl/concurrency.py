"""``lock`` and ``elect``: holding a lock or a leadership from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from kvstore.cli.kvctl.failures import BadArguments, Failure
from kvstore.cli.kvctl.settings import settings_of
from kvstore.pb import etcdserverpb_pb2 as pb

if TYPE_CHECKING:
    from kvstore.cli.kvctl.printers import Printer
    from kvstore.client import AsyncClient
    from kvstore.client.recipes import Candidacy

_LOCK_HELP = """Hold the lock NAME: while PROGRAM runs, or until interrupted.

The program has the lock's key in ETCD_LOCK_KEY, and in ETCD_LOCK_REV its fencing token: a number
that grows with every holder, for whatever the lock protects to refuse late comers by.

\b
Examples:
  kvctl lock /locks/report -- ./report.sh
  kvctl lock /locks/report                            prints the key, holds until Ctrl-C
"""


@contextlib.asynccontextmanager
async def _interruptible() -> AsyncIterator[asyncio.Event]:
    """Turn the first interrupt into an event, so that what is held is given back."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    try:
        yield interrupted
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _acquire(candidacy: Candidacy, interrupted: asyncio.Event) -> bool:
    """Wait for one's turn; False if an interrupt came first."""
    entering = asyncio.create_task(candidacy.__aenter__())
    stopping = asyncio.create_task(interrupted.wait())
    await asyncio.wait({entering, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not entering.done():
        entering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await entering
        return False
    entering.result()
    return True


async def _hold(candidacy: Candidacy, interrupted: asyncio.Event) -> None:
    """Hold until interrupted; fails if the lease is lost before."""
    lost = asyncio.create_task(candidacy.lease.wait_lost())
    stopping = asyncio.create_task(interrupted.wait())
    await asyncio.wait({lost, stopping}, return_when=asyncio.FIRST_COMPLETED)
    lost.cancel()
    stopping.cancel()
    if candidacy.lease.is_lost:
        raise Failure("session expired")


async def _show(client: AsyncClient, printer: Printer, key: bytes) -> None:
    from kvstore.client import rpcs

    printer.get(await client.connection.call(rpcs.RANGE, pb.RangeRequest(key=key)))


@click.command(help=_LOCK_HELP, short_help="Hold a lock")
@click.argument("args", metavar="NAME [-- PROGRAM ...]", nargs=-1)
@click.option("--ttl", default=10, help="Seconds until the lock of a dead holder is free [10].")
@click.pass_context
def lock(ctx: click.Context, args: tuple[str, ...], ttl: int) -> None:
    """Hold a lock."""
    if not args:
        raise BadArguments("lock takes a lock name argument and an optional command to execute")
    settings = settings_of(ctx)
    printer = settings.printer()
    settings.run(lambda client: _lock(client, printer, args[0], list(args[1:]), ttl))


async def _lock(
    client: AsyncClient, printer: Printer, name: str, program: list[str], ttl: int
) -> None:
    held = client.lock(name, ttl_s=ttl)
    async with _interruptible() as interrupted:
        if not await _acquire(held, interrupted):
            return
        try:
            if program:
                await _run(program, held)
            else:
                await _show(client, printer, held.key)
                await _hold(held, interrupted)
        finally:
            await held.__aexit__(None, None, None)


async def _run(program: list[str], held: Candidacy) -> None:
    variables = {
        "ETCD_LOCK_KEY": held.key.decode("utf-8", "surrogateescape"),
        "ETCD_LOCK_REV": str(held.fencing_token),
    }
    try:
        running = await asyncio.create_subprocess_exec(*program, env={**os.environ, **variables})
    except OSError as error:
        raise Failure(f"cannot run {program[0]}: {error.strerror}") from None
    status = await running.wait()
    if status != 0:
        raise Failure(f"exit status {status}")


_ELECT_HELP = """Run for leader of the election NAME with PROPOSAL, or follow it with -l.

Prints the leader's key and proposal. A candidate leads until interrupted.

\b
Examples:
  kvctl elect /election/scheduler node1
  kvctl elect -l /election/scheduler
"""


@click.command(help=_ELECT_HELP, short_help="Elect a leader")
@click.argument("args", metavar="NAME [PROPOSAL]", nargs=-1)
@click.option("-l", "--listen", is_flag=True, help="Only follow who leads.")
@click.pass_context
def elect(ctx: click.Context, args: tuple[str, ...], listen: bool) -> None:
    """Take part in an election."""
    if not 1 <= len(args) <= 2:
        raise BadArguments(
            "elect takes one election name argument and an optional proposal argument"
        )
    if listen and len(args) == 2:
        raise BadArguments("proposal given but -l is set")
    if not listen and len(args) == 1:
        raise BadArguments("no proposal argument but -l not set")
    settings = settings_of(ctx)
    printer = settings.printer()
    if listen:
        settings.run(lambda client: _observe(client, printer, args[0]))
    else:
        settings.run(lambda client: _campaign(client, printer, args[0], args[1]))


async def _observe(client: AsyncClient, printer: Printer, name: str) -> None:
    async for leader in client.observe(name):
        await _show(client, printer, leader.key)


async def _campaign(client: AsyncClient, printer: Printer, name: str, proposal: str) -> None:
    leadership = client.campaign(name, proposal)
    async with _interruptible() as interrupted:
        if not await _acquire(leadership, interrupted):
            return
        try:
            await _show(client, printer, leadership.key)
            await _hold(leadership, interrupted)
        finally:
            await leadership.__aexit__(None, None, None)
