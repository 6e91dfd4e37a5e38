"""``raftyard``: serve any state machine, and call it.

The flags of ``serve`` have etcd's names where they mean what etcd means.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import click
import rich.box
import rich.console
import rich.table
import uvloop

from consensus.client import Client
from consensus.errors import ConfigError, ConsensusError, OutcomeUnknown, StorageError
from consensus.loading import load_machine
from consensus.methods import encode_call
from consensus.node import PROPOSE_TIMEOUT_S, Node
from consensus.server import serve as serve_node
from consensus.serving import client_addresses, engine_of, peer_certificates
from consensus.types import Consistency

DEFAULT_CLIENT_URL: Final = "http://localhost:2379"
DEFAULT_PEER_URL: Final = "http://localhost:2380"
EXIT_FAILED: Final = 1
EXIT_UNKNOWN: Final = 3


def _fail(error: ConsensusError | str, code: int = EXIT_FAILED) -> None:
    click.echo(f"raftyard: {error}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raftyard")
def main() -> None:
    """Replicated state machines: serve one, and call it."""


@main.command()
@click.argument("machine", metavar="MODULE:MACHINE")
@click.option("--name", default="default", show_default=True, help="This member's name.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Default: NAME.raftyard.")
@click.option("--listen-peer-urls", default=DEFAULT_PEER_URL, show_default=True)
@click.option("--listen-client-urls", default=DEFAULT_CLIENT_URL, show_default=True)
@click.option(
    "--initial-cluster",
    default="",
    help="Every member: name=http://host:port,... (or https:// all of them)",
)
@click.option(
    "--engine",
    type=click.Choice(["native", "pysyncobj", "local"]),
    default="native",
    show_default=True,
    help="native: our own. pysyncobj: syncs nothing to disk. local: one member, in memory.",
)
@click.option("--election-timeout", default=1000, show_default=True, help="Milliseconds.")
@click.option("--heartbeat-interval", default=100, show_default=True, help="Milliseconds.")
@click.option(
    "--snapshot-count", default=10_000, show_default=True, help="Commands between snapshots."
)
@click.option(
    "--peer-password-file", type=click.Path(path_type=Path), help="For --engine pysyncobj."
)
@click.option("--peer-cert-file", metavar="PATH", help="This member's certificate: https:// peers.")
@click.option("--peer-key-file", metavar="PATH", help="Its private key.")
@click.option("--peer-trusted-ca-file", metavar="PATH", help="Who signs the members' certificates.")
@click.option(
    "--peer-client-cert-auth",
    is_flag=True,
    help="Refuse members without a trusted certificate (implied by --peer-trusted-ca-file).",
)
def serve(machine: str, data_dir: Path | None, **options: Any) -> None:
    """Run one member of a group that replicates a state machine.

    MODULE:MACHINE is called to make the machine, without arguments, or with `directory` if it takes
    an argument of that name. Clients speak HTTP: POST /propose, POST /query, GET /status.
    """
    flags = {name.replace("_", "-"): value for name, value in options.items()}
    directory = data_dir or Path(f"{flags['name']}.raftyard")

    async def run() -> str:
        clients, certificates = client_addresses(flags), peer_certificates(flags)
        engine = engine_of(flags, directory, certificates)
        node = Node(load_machine(machine, directory / "machine"), engine)
        renewal = asyncio.create_task(certificates.run())
        try:
            return await serve_node(node, clients)
        finally:
            renewal.cancel()

    try:
        reason = uvloop.run(run())
    except (ConfigError, StorageError) as error:
        _fail(error)
    else:
        if reason:
            _fail(f"stopped: {reason}")


def client_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every client command has."""
    endpoints = click.option(
        "--endpoints",
        default=DEFAULT_CLIENT_URL,
        show_default=True,
        envvar="RAFTYARD_ENDPOINTS",
        help="Client addresses of some members, separated by commas.",
    )
    timeout = click.option(
        "--timeout", "timeout_s", default=PROPOSE_TIMEOUT_S, show_default=True, help="Seconds."
    )
    return endpoints(timeout(function))


def _arguments(values: tuple[str, ...]) -> dict[str, Any]:
    """Return name=value pairs; a value that is JSON is taken as such, anything else as text."""
    arguments: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise ConfigError(f"argument {value!r} is not name=value")
        try:
            arguments[name] = json.loads(text)
        except ValueError:
            arguments[name] = text
    return arguments


def _message(method: str, arguments: tuple[str, ...], raw: bool) -> bytes:
    if raw:
        if arguments:
            raise ConfigError("--raw takes one text, and no arguments")
        return method.encode()
    return encode_call(method, _arguments(arguments))


def _run(endpoints: str, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    """Run ``work`` with a client; end the process with one line when it fails."""

    async def connected() -> Any:
        async with Client([part for part in endpoints.split(",") if part]) as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except OutcomeUnknown as error:
        _fail(f"outcome unknown, it may have been applied: {error}", EXIT_UNKNOWN)
    except ConsensusError as error:
        _fail(error)


def _print(result: Any) -> None:
    """Print a result as JSON; end with an error when the machine refused."""
    if isinstance(result, bytes):
        sys.stdout.buffer.write(result + b"\n")
        return
    if isinstance(result, dict) and result.keys() == {"refused"}:
        _fail(f"refused: {result['refused']}")
    click.echo(json.dumps(result, ensure_ascii=False))


@main.command()
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--raw", is_flag=True, help="METHOD is the whole command, as text.")
@client_options
def call(
    method: str, arguments: tuple[str, ...], raw: bool, endpoints: str, timeout_s: float
) -> None:
    """Run a command of the served machine, and print its result as JSON.

    Exits with 3 when nobody can tell whether the command was applied.
    """

    async def work(client: Client) -> Any:
        return (await client.propose(_message(method, arguments, raw), timeout_s)).result

    _print(_run(endpoints, work))


@main.command()
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--raw", is_flag=True, help="METHOD is the whole question, as text.")
@click.option("--serializable", is_flag=True, help="What one member has, which may be behind.")
@client_options
def query(
    method: str,
    arguments: tuple[str, ...],
    raw: bool,
    serializable: bool,
    endpoints: str,
    timeout_s: float,
) -> None:
    """Ask the served machine, and print the answer as JSON."""
    consistency = Consistency.SERIALIZABLE if serializable else Consistency.LINEARIZABLE

    async def work(client: Client) -> Any:
        return await client.query(_message(method, arguments, raw), consistency, timeout_s)

    _print(_run(endpoints, work))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@client_options
def status(as_json: bool, endpoints: str, timeout_s: float) -> None:
    """Show what each member says about itself. Exits with 1 when one does not answer."""
    found: dict[str, dict[str, Any]] = _run(endpoints, lambda client: client.status(timeout_s))
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        table = rich.table.Table(box=rich.box.SIMPLE)
        for column in ("endpoint", "name", "role", "term", "leader", "applied", "state"):
            table.add_column(column)
        for endpoint, member in found.items():
            row = [
                str(member.get(key, ""))
                for key in ("name", "role", "term", "leader", "applied_index")
            ]
            state = member.get("error") or member.get("halted") or "ok"
            table.add_row(endpoint.removeprefix("http://"), *row, state)
        rich.console.Console().print(table)
    if any("error" in member for member in found.values()):
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
