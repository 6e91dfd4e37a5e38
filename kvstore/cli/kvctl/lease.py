"""``lease``: grant, renew, inspect, list and revoke leases. IDs are in hexadecimal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from kvstore.cli.kvctl.failures import EXIT_BAD_CONNECTION, BadArguments, Failure
from kvstore.cli.kvctl.kv import lease_id_of
from kvstore.cli.kvctl.settings import settings_of
from kvstore.errors import LEASE_NOT_FOUND, EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb

if TYPE_CHECKING:
    from kvstore.cli.kvctl.printers import Printer
    from kvstore.client import AsyncClient

_HELP = """Keys that live as long as someone keeps their lease alive.

\b
Example:
  kvctl lease grant 60                                prints the lease's ID
  kvctl put /services/web/1 10.0.1.10:80 --lease ID
  kvctl lease keep-alive ID                           until interrupted
  kvctl lease revoke ID                               deletes its keys
"""


@click.group(help=_HELP, short_help="Leases", no_args_is_help=True)
def lease() -> None:
    """The group; says what leases are for."""


def _one_id(args: tuple[str, ...], command: str) -> int:
    if len(args) != 1:
        raise BadArguments(f"lease {command} command needs lease ID as argument")
    return lease_id_of(args[0], "bad lease ID arg")


@lease.command()
@click.argument("args", metavar="TTL", nargs=-1)
@click.pass_context
def grant(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Grant a lease of TTL seconds.

    \b
    Example:
      kvctl lease grant 60
    """
    from kvstore.client import rpcs

    if len(args) != 1:
        raise BadArguments("lease grant command needs TTL argument")
    try:
        request = pb.LeaseGrantRequest(TTL=int(args[0]))
    except ValueError:
        raise BadArguments(
            f'bad TTL (strconv.ParseInt: parsing "{args[0]}": invalid syntax)'
        ) from None
    settings = settings_of(ctx)
    printer = settings.printer()
    printer.grant(settings.run(lambda client: client.connection.call(rpcs.LEASE_GRANT, request)))


@lease.command()
@click.argument("args", metavar="ID", nargs=-1)
@click.pass_context
def revoke(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Revoke a lease and delete its keys."""
    from kvstore.client import rpcs

    lease_id = _one_id(args, "revoke")
    request = pb.LeaseRevokeRequest(ID=lease_id)
    settings = settings_of(ctx)
    printer = settings.printer()
    try:
        answer = settings.run(lambda client: client.connection.call(rpcs.LEASE_REVOKE, request))
    except EtcdError as error:
        raise Failure(f"failed to revoke lease ({error})") from None
    printer.revoke(lease_id, answer)


@lease.command()
@click.argument("args", metavar="ID", nargs=-1)
@click.option("--keys", is_flag=True, help="Show the keys attached to it.")
@click.pass_context
def timetolive(ctx: click.Context, args: tuple[str, ...], keys: bool) -> None:
    """Show how long a lease has still to live."""
    from kvstore.client import rpcs

    request = pb.LeaseTimeToLiveRequest(ID=_one_id(args, "timetolive"), keys=keys)
    settings = settings_of(ctx)
    printer = settings.printer()
    answer = settings.run(lambda client: client.connection.call(rpcs.LEASE_TIME_TO_LIVE, request))
    printer.time_to_live(answer, keys)


@lease.command("list")
@click.argument("args", metavar="", nargs=-1)
@click.pass_context
def list_leases(ctx: click.Context, args: tuple[str, ...]) -> None:
    """List the IDs of all leases."""
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    printer = settings.printer()
    request = pb.LeaseLeasesRequest()
    printer.leases(settings.run(lambda client: client.connection.call(rpcs.LEASE_LEASES, request)))


@lease.command("keep-alive")
@click.argument("args", metavar="ID", nargs=-1)
@click.option("--once", is_flag=True, help="Renew once and end.")
@click.pass_context
def keep_alive(ctx: click.Context, args: tuple[str, ...], once: bool) -> None:
    """Renew a lease again and again, until interrupted or until it is gone.

    \b
    Example:
      kvctl lease keep-alive 694d77aa9e38260f
    """
    lease_id = _one_id(args, "keep-alive")
    settings = settings_of(ctx)
    printer = settings.printer()
    settings.run(lambda client: _renew(client, printer, lease_id, once))


async def _renew(client: AsyncClient, printer: Printer, lease_id: int, once: bool) -> None:
    from kvstore.client import rpcs
    from kvstore.client.lease import RENEWALS_PER_TTL

    request = pb.LeaseKeepAliveRequest(ID=lease_id)
    while True:
        answer = await client.connection.call(rpcs.LEASE_KEEP_ALIVE, request)
        if once and answer.TTL <= 0:
            raise Failure(LEASE_NOT_FOUND.message, EXIT_BAD_CONNECTION)
        if answer.TTL <= 0:
            click.echo(f"lease {lease_id:016x} expired or revoked.")
            return
        printer.keep_alive(answer)
        if once:
            return
        await asyncio.sleep(answer.TTL / RENEWALS_PER_TTL)
