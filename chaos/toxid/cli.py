"""``chaos toxid``: the proxy server as a command."""

from __future__ import annotations

import asyncio

import click

from chaos.toxid.server import serve


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the HTTP API.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8474,
    show_default=True,
    help="Port of the HTTP API; 0 takes any free one.",
)
@click.option("--seed", default=0, show_default=True, help="Makes every random choice repeatable.")
def toxid(host: str, port: int, seed: int) -> None:
    """Run a proxy server with Toxiproxy's HTTP API until Ctrl-C."""

    def started(address: str) -> None:
        click.echo(f"toxid: Toxiproxy's API on http://{address} (seed {seed})")

    try:
        asyncio.run(serve(host, port, seed, started))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host}:{port}: {error}. Choose another with --port."
        ) from error
