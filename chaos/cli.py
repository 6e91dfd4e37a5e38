"""The ``chaos`` command."""

from __future__ import annotations

import asyncio

import click

from chaos.toxid.server import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Break clusters on purpose, and prove whether any promise was broken."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the HTTP API.")
@click.option("--port", default=8474, show_default=True, help="Port of the HTTP API.")
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


if __name__ == "__main__":
    main()
