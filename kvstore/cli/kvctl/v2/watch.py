"""``watch`` and ``exec-watch`` as etcdctl v2 has them; also ``watch -f -r`` under API 3.

A recursive watch prints ``[set] /key`` before each value, a plain one the values alone. Without -f
it ends after the first change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvstore.cli.kvctl.failures import Failure
from kvstore.cli.kvctl.kv import Bytes
from kvstore.cli.kvctl.settings import Settings, settings_of
from kvstore.cli.kvctl.v2.commands import key_of, write_line
from kvstore.cli.kvctl.watch import AFTER_DASHES, DashedCommand, run_program

if TYPE_CHECKING:
    from kvstore.client import AsyncClient, Event


def follow(
    settings: Settings,
    key: bytes,
    forever: bool,
    recursive: bool,
    start_revision: int,
    program: list[str],
) -> None:
    """Print the changes of a key, or of a directory if ``recursive``; or run ``program``."""
    settings.run(lambda client: _follow(client, key, forever, recursive, start_revision, program))


async def _follow(
    client: AsyncClient,
    key: bytes,
    forever: bool,
    recursive: bool,
    start_revision: int,
    program: list[str],
) -> None:
    from kvstore.cli.kvctl.v2.tree import below

    # One watch from the key to the end of what is below it; what lies between is left out.
    end = below(key)[:-1] + b"0" if recursive else None
    watched = client.watch(key, end, start_revision=start_revision, prev_kv=True)
    async for event in watched:
        name = event.kv.key
        if name != key and not name.startswith(below(key)):
            continue
        if name.endswith(b"/") and name != b"/":
            continue  # the marker of a directory: v2 prints nothing for those either
        if program:
            run_program(program, _environment(event))
        else:
            _show(event, recursive)
        if not forever:
            await watched.close()


def _show(event: Event, recursive: bool) -> None:
    from kvstore.client import EventType

    deleted = event.type is EventType.DELETE
    if recursive:
        write_line(b"[delete] " + event.kv.key if deleted else b"[set] " + event.kv.key)
    if deleted:
        previous = event.prev_kv.value if event.prev_kv is not None else b""
        write_line(b"PrevNode.Value: " + previous)
    else:
        write_line(event.kv.value)


def _environment(event: Event) -> dict[str, str]:
    from kvstore.client import EventType

    return {
        "ETCD_WATCH_ACTION": "delete" if event.type is EventType.DELETE else "set",
        "ETCD_WATCH_KEY": event.kv.key.decode("utf-8", "surrogateescape"),
        "ETCD_WATCH_VALUE": event.kv.value.decode("utf-8", "surrogateescape"),
        "ETCD_WATCH_MODIFIED_INDEX": str(event.kv.mod_revision),
    }


def _after(index: int) -> int:
    return index + 1 if index else 0


@click.command(short_help="See changes")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@click.option("-f", "--forever", is_flag=True, help="Until interrupted, not just one change.")
@click.option("-r", "--recursive", is_flag=True, help="All keys below KEY too.")
@click.option("--after-index", default=0, help="Begin with the change after this index [now].")
@click.pass_context
def watch(
    ctx: click.Context, args: tuple[bytes, ...], forever: bool, recursive: bool, after_index: int
) -> None:
    """Print the changes of KEY, or with -r of all below it.

    \b
    Examples:
      kvctl watch -f -r /config
      kvctl watch /config/title
    """
    key = key_of(args)
    follow(settings_of(ctx), key, forever, recursive, _after(after_index), [])


@click.command("exec-watch", cls=DashedCommand, short_help="Run a program at each change")
@click.argument("args", metavar="KEY [--] PROGRAM ...", nargs=-1, type=Bytes())
@click.option("-r", "--recursive", is_flag=True, help="All keys below KEY too.")
@click.option("--after-index", default=0, help="Begin with the change after this index [now].")
@click.pass_context
def exec_watch(
    ctx: click.Context, args: tuple[bytes, ...], recursive: bool, after_index: int
) -> None:
    """Run PROGRAM at each change of KEY, until interrupted.

    The change is in its environment: ETCD_WATCH_ACTION, ETCD_WATCH_KEY, ETCD_WATCH_VALUE,
    ETCD_WATCH_MODIFIED_INDEX.

    \b
    Example:
      kvctl exec-watch -r /config -- ./reload.sh
    """
    program = [*(each.decode("utf-8", "surrogateescape") for each in args[1:])]
    program += ctx.meta.get(AFTER_DASHES, [])
    if not args or not program:
        raise Failure("key and command to exec required")
    follow(settings_of(ctx), key_of(args), True, recursive, _after(after_index), program)
