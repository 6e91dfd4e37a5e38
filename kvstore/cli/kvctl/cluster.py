"""``endpoint``, ``alarm`` and ``defrag``: the servers themselves."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kvstore.cli.kvctl.failures import EXIT_ERROR, BadArguments, Failure
from kvstore.cli.kvctl.settings import settings_of
from kvstore.errors import PERMISSION_DENIED, EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb

if TYPE_CHECKING:
    from kvstore.cli.kvctl.printers import Health
    from kvstore.client import AsyncClient

R = TypeVar("R")


_ENDPOINT_HELP = """Ask each server in --endpoints, or with --cluster each member's own addresses.

\b
Examples:
  kvctl endpoint health --cluster
  kvctl endpoint status --cluster -w table
  kvctl endpoint hashkv --cluster                     equal on all, or something is wrong
"""


@click.group(help=_ENDPOINT_HELP, short_help="Servers", no_args_is_help=True)
@click.option("--cluster", is_flag=True, help="Ask every member of the cluster.")
@click.pass_context
def endpoint(ctx: click.Context, cluster: bool) -> None:
    """The group; its option may stand before or after the command's name."""
    ctx.meta[_CLUSTER] = cluster


_CLUSTER = "kvctl.endpoint.cluster"


def _cluster_option(command: Any) -> Any:
    def store(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.meta[_CLUSTER] = value or ctx.meta.get(_CLUSTER, False)

    return click.option(
        "--cluster",
        is_flag=True,
        expose_value=False,
        callback=store,
        help="Ask every member of the cluster.",
    )(command)


async def _endpoints(client: AsyncClient, ctx: click.Context) -> list[str]:
    """Return the addresses to ask, each once."""
    if not ctx.meta.get(_CLUSTER):
        return settings_of(ctx).endpoint_list
    members = await client.member_list()
    return list(dict.fromkeys(url for each in members for url in each.client_urls))


async def _ask_each(
    client: AsyncClient, ctx: click.Context, ask: Callable[[str], Any], failed: str
) -> tuple[list[tuple[str, Any]], bool]:
    """Ask each endpoint; report those that fail on standard error. Returns the answers."""
    answers, good = [], True
    for address in await _endpoints(client, ctx):
        try:
            answers.append((address, await ask(address)))
        except EtcdError as error:
            print(f"{failed.format(address)} ({error})", file=sys.stderr)
            good = False
    return answers, good


@endpoint.command()
@click.argument("args", metavar="", nargs=-1)
@_cluster_option
@click.pass_context
def health(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Check that each server can read what the cluster agrees on; exit status 1 if one cannot."""
    settings = settings_of(ctx)
    printer = settings.printer()

    async def check(client: AsyncClient) -> list[Health]:
        addresses = await _endpoints(client, ctx)
        return await asyncio.gather(*(_health(client, address) for address in addresses))

    found = settings.run(check)
    printer.endpoint_health(found)
    if not all(each.healthy for each in found):
        raise Failure("unhealthy cluster")


async def _health(client: AsyncClient, address: str) -> Health:
    from kvstore.cli.kvctl.printers import Health
    from kvstore.client import rpcs

    began = time.monotonic()
    problem = ""
    try:
        await client.connection.call(rpcs.RANGE, pb.RangeRequest(key=b"health"), endpoint=address)
        answer = await client.connection.call(rpcs.ALARM, pb.AlarmRequest(), endpoint=address)
        if answer.alarms:
            kinds = ", ".join(pb.AlarmType.Name(each.alarm) for each in answer.alarms)
            problem = f"Active Alarm(s): {kinds}"
    except EtcdError as error:
        # Being refused a key takes the cluster's agreement as much as reading it does.
        problem = "" if error.status == PERMISSION_DENIED else str(error)
    return Health(address, not problem, time.monotonic() - began, problem)


@endpoint.command()
@click.argument("args", metavar="", nargs=-1)
@_cluster_option
@click.pass_context
def status(ctx: click.Context, args: tuple[str, ...]) -> int:
    """Show the state of each server.

    In this order: endpoint, ID, version, size, is leader, is learner, raft term, raft index, raft
    applied index, errors.
    """
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    printer = settings.printer()
    answers, good = settings.run(
        lambda client: _ask_each(
            client,
            ctx,
            lambda address: client.connection.call(
                rpcs.STATUS, pb.StatusRequest(), endpoint=address
            ),
            "Failed to get the status of endpoint {}",
        )
    )
    printer.endpoint_status(answers)
    return 0 if good else EXIT_ERROR


@endpoint.command()
@click.argument("args", metavar="", nargs=-1)
@_cluster_option
@click.option("--rev", default=0, help="Of the history up to this revision [all].")
@click.pass_context
def hashkv(ctx: click.Context, args: tuple[str, ...], rev: int) -> int:
    """Show the checksum of each server's history."""
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    printer = settings.printer()
    answers, good = settings.run(
        lambda client: _ask_each(
            client,
            ctx,
            lambda address: client.connection.call(
                rpcs.HASH_KV, pb.HashKVRequest(revision=rev), endpoint=address
            ),
            "Failed to get the hash of endpoint {}",
        )
    )
    printer.endpoint_hashkv(answers)
    return 0 if good else EXIT_ERROR


@click.group(help="Alarms that members have raised.", short_help="Alarms", no_args_is_help=True)
def alarm() -> None:
    """The group."""


@alarm.command("list")
@click.argument("args", metavar="", nargs=-1)
@click.pass_context
def alarm_list(ctx: click.Context, args: tuple[str, ...]) -> None:
    """List the alarms that are raised."""
    from kvstore.client import rpcs

    if args:
        raise BadArguments("alarm list command accepts no arguments")
    settings = settings_of(ctx)
    printer = settings.printer()
    printer.alarm(
        settings.run(lambda client: client.connection.call(rpcs.ALARM, pb.AlarmRequest()))
    )


@alarm.command("disarm")
@click.argument("args", metavar="", nargs=-1)
@click.pass_context
def alarm_disarm(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Disarm all alarms. What raised them should be gone: see kvctl compaction and defrag."""
    from kvstore.client import rpcs

    if args:
        raise BadArguments("alarm disarm command accepts no arguments")
    settings = settings_of(ctx)
    printer = settings.printer()

    async def disarm(client: AsyncClient) -> pb.AlarmResponse:
        answer = pb.AlarmResponse()
        for each in (await client.connection.call(rpcs.ALARM, pb.AlarmRequest())).alarms:
            request = pb.AlarmRequest(
                action=pb.AlarmRequest.DEACTIVATE, memberID=each.memberID, alarm=each.alarm
            )
            gone = await client.connection.call(rpcs.ALARM, request)
            answer.alarms.extend(gone.alarms)
        return answer

    printer.alarm(settings.run(disarm))


@click.command(short_help="Give space back")
@click.argument("args", metavar="", nargs=-1)
@_cluster_option
@click.pass_context
def defrag(ctx: click.Context, args: tuple[str, ...]) -> int:
    """Give the space that compaction freed back to the file system, server by server.

    \b
    Example:
      kvctl defrag --cluster
    """

    async def each(client: AsyncClient) -> bool:
        good = True
        for address in await _endpoints(client, ctx):
            try:
                await client.defragment(address)
            except EtcdError as error:
                print(f"Failed to defragment etcd member[{address}] ({error})", file=sys.stderr)
                good = False
            else:
                click.echo(f"Finished defragmenting etcd member[{address}]")
        return good

    return 0 if settings_of(ctx).run(each) else EXIT_ERROR
