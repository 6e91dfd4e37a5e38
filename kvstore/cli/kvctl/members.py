"""``member`` and ``move-leader``: who is in the cluster, who joins and leaves, and who leads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from kvstore.cli.kvctl.failures import BadArguments, Failure
from kvstore.cli.kvctl.settings import settings_of
from kvstore.errors import EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb

if TYPE_CHECKING:
    from kvstore.client import AsyncClient

_HELP = """List, add, promote, move and remove members while the cluster runs.

\b
A new member, step by step:
  kvctl member add infra3 --learner --peer-urls http://10.0.1.13:2380
  (start kvstore on 10.0.1.13 with the settings that this prints)
  kvctl member promote ID             once it has caught up

Add one member at a time, and remove one that is lost for good before its replacement is added.
"""


@click.group(help=_HELP, short_help="Members", no_args_is_help=True)
def member() -> None:
    """The group."""


@member.command("list")
@click.argument("args", metavar="", nargs=-1)
@click.pass_context
def member_list(ctx: click.Context, args: tuple[str, ...]) -> None:
    """List the members: ID, status, name, peer addresses, client addresses, is learner.

    \b
    Example:
      kvctl member list -w table
    """
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    printer = settings.printer()
    request = pb.MemberListRequest(linearizable=True)
    printer.member_list(
        settings.run(lambda client: client.connection.call(rpcs.MEMBER_LIST, request))
    )


@member.command("add")
@click.argument("args", metavar="NAME", nargs=-1)
@click.option("--peer-urls", default="", help="Where the others reach it; several with commas.")
@click.option("--learner", is_flag=True, help="It gets the data first and votes when promoted.")
@click.pass_context
def member_add(ctx: click.Context, args: tuple[str, ...], peer_urls: str, learner: bool) -> None:
    """Make a place for a new member; prints the settings to start it with.

    \b
    Example:
      kvctl member add infra3 --learner --peer-urls http://10.0.1.13:2380
    """
    from kvstore.client import rpcs

    if not args:
        raise BadArguments("member name not provided")
    if len(args) > 1:
        raise BadArguments("too many arguments")
    if not peer_urls:
        raise BadArguments("member peer urls not provided")
    settings = settings_of(ctx)
    printer = settings.printer()
    request = pb.MemberAddRequest(peerURLs=_checked(peer_urls), isLearner=learner)
    printer.member_add(
        args[0], settings.run(lambda client: client.connection.call(rpcs.MEMBER_ADD, request))
    )


@member.command("update")
@click.argument("args", metavar="ID", nargs=-1)
@click.option("--peer-urls", default="", help="Where the others reach it from now on.")
@click.pass_context
def member_update(ctx: click.Context, args: tuple[str, ...], peer_urls: str) -> None:
    """Tell the cluster where a member is from now on.

    \b
    Example:
      kvctl member update 8e9e05c52164694d --peer-urls http://10.0.1.20:2380
    """
    from kvstore.client import rpcs

    id = _one_id(args)
    if not peer_urls:
        raise BadArguments("member peer urls not provided")
    settings = settings_of(ctx)
    printer = settings.printer()
    request = pb.MemberUpdateRequest(ID=id, peerURLs=_checked(peer_urls))
    printer.member_update(
        id, settings.run(lambda client: client.connection.call(rpcs.MEMBER_UPDATE, request))
    )


@member.command("remove")
@click.argument("args", metavar="ID", nargs=-1)
@click.pass_context
def member_remove(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Take a member out of the cluster for good: it stops, and its data are of no more use.

    \b
    Example:
      kvctl member remove 8e9e05c52164694d
    """
    from kvstore.client import rpcs

    id = _one_id(args)
    settings = settings_of(ctx)
    printer = settings.printer()
    request = pb.MemberRemoveRequest(ID=id)
    printer.member_remove(
        id, settings.run(lambda client: client.connection.call(rpcs.MEMBER_REMOVE, request))
    )


@member.command("promote")
@click.argument("args", metavar="ID", nargs=-1)
@click.pass_context
def member_promote(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Let a learner that has caught up with the leader vote.

    \b
    Example:
      kvctl member promote 8e9e05c52164694d
    """
    from kvstore.client import rpcs

    id = _one_id(args)
    settings = settings_of(ctx)
    printer = settings.printer()
    request = pb.MemberPromoteRequest(ID=id)
    printer.member_promote(
        id, settings.run(lambda client: client.connection.call(rpcs.MEMBER_PROMOTE, request))
    )


def _checked(peer_urls: str) -> list[str]:
    """Return the URLs. Fails, in the words of etcd's client, where one is none."""
    urls = peer_urls.split(",")
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix", "unixs"):
            raise Failure(f"URL scheme must be http, https, unix, or unixs: {url}")
        if not re.fullmatch(r"(\[.*\]|[^:]*):[^:]*", parts.netloc):
            raise Failure(f'URL address does not have the form "host:port": {url}')
        if parts.path:
            raise Failure(f"URL must not contain a path: {url}")
    return urls


def _one_id(args: tuple[str, ...]) -> int:
    if len(args) != 1:
        raise BadArguments("member ID is not provided")
    try:
        return _parse_id(args[0])
    except ValueError as error:
        raise BadArguments(f"bad member ID arg ({error}), expecting ID in Hex") from None


def _parse_id(text: str) -> int:
    """Read an ID. Raises ``ValueError`` with Go's words."""
    try:
        value = int(text, 16)
        if not 0 <= value < 2**64:
            raise ValueError
    except ValueError:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax') from None
    return value


@click.command("move-leader", short_help="Hand leadership over")
@click.argument("args", metavar="ID", nargs=-1)
@click.pass_context
def move_leader(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Let another member lead; the leader must be among --endpoints.

    \b
    Example:
      kvctl move-leader 8e9e05c52164694d --endpoints 10.0.1.10:2379,10.0.1.11:2379
    """
    from kvstore.client import rpcs

    if len(args) != 1:
        raise BadArguments("move-leader command needs 1 argument")
    try:
        target = _parse_id(args[0])
    except ValueError as error:
        raise BadArguments(str(error)) from None
    settings = settings_of(ctx)
    printer = settings.printer()

    async def move(client: AsyncClient) -> tuple[int, pb.MoveLeaderResponse]:
        for address in settings.endpoint_list:
            try:
                status = await client.status(address)
            except EtcdError:
                continue
            if status.header.member_id == status.leader:
                request = pb.MoveLeaderRequest(targetID=target)
                return status.leader, await client.connection.call(
                    rpcs.MOVE_LEADER, request, endpoint=address
                )
        listed = " ".join(settings.endpoint_list)
        raise BadArguments(f"no leader endpoint given at [{listed}]")

    leader, answer = settings.run(move)
    printer.move_leader(leader, target, answer)
