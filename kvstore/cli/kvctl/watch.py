"""``watch``: follow keys, print each change, run a program for it; or watches from a prompt.

With ``-f`` or ``-r`` it is etcdctl v2's watch, as its users type it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from kvstore.cli.kvctl.failures import (
    EXIT_INTERRUPTED,
    EXIT_INVALID_INPUT,
    BadArguments,
    Failure,
)
from kvstore.cli.kvctl.golang import quote, split_arguments
from kvstore.cli.kvctl.kv import Bytes
from kvstore.cli.kvctl.settings import settings_of
from kvstore.errors import COMPACTED
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2 as mvccpb

if TYPE_CHECKING:
    from kvstore.cli.kvctl.printers import Printer
    from kvstore.client import AsyncClient, Watch

KEY_VARIABLE: Final = "ETCDCTL_WATCH_KEY"
RANGE_END_VARIABLE: Final = "ETCDCTL_WATCH_RANGE_END"
AFTER_DASHES: Final = "kvctl.watch.after_dashes"

_HELP = """Print every change of KEY, of [KEY, RANGE_END), or of all keys with a prefix.

With a program after --, run it for each change, with the change in its environment:
ETCD_WATCH_KEY, ETCD_WATCH_VALUE, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_REVISION. The key can also come
from the environment: ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END.

\b
Examples:
  kvctl watch /config/ --prefix
  kvctl watch /config/title --rev 42                  from revision 42 on
  kvctl watch /config/ --prefix -- ./reload.sh
  kvctl watch -f -r /config                           as etcdctl v2 prints it
  kvctl watch -i                                      type watches: watch /a --prefix
"""


class DashedCommand(click.Command):
    """A command that keeps what comes after ``--`` apart."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the part after ``--`` aside and parse the rest."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[AFTER_DASHES] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@attrs.frozen(slots=True)
class WatchLine:
    """One watch as typed: its request, and the program to run at each event."""

    request: pb.WatchCreateRequest
    program: list[str]


def watch_line(
    args: tuple[bytes, ...], program: list[str], from_environment: bool, **options: Any
) -> WatchLine:
    """Return the watch that arguments and options mean. Fails saying what is missing."""
    from kvstore.client.records import key_range

    key = os.environ.get(KEY_VARIABLE) if from_environment else None
    if key is not None:
        if args:
            raise BadArguments("bad number of arguments (found conflicting environment key)")
        end = os.environ.get(RANGE_END_VARIABLE)
        args = (key.encode(), *((end.encode(),) if end else ()))
    if not 1 <= len(args) <= 2:
        raise BadArguments("bad number of arguments")
    if options["prefix"] and len(args) == 2:
        raise BadArguments("`range_end` and `--prefix` are mutually exclusive")
    start, range_end = key_range(
        args[0], args[1] if len(args) == 2 else None, prefix=options["prefix"]
    )
    request = pb.WatchCreateRequest(
        key=start,
        range_end=range_end,
        start_revision=options["rev"],
        prev_kv=options["prev_kv"],
        progress_notify=options["progress_notify"],
    )
    return WatchLine(request, program)


def _watch_options(command: Any) -> Any:
    for option in (
        click.option("--progress-notify", is_flag=True, help="Print notices of quiet watches."),
        click.option("--prev-kv", is_flag=True, help="Print the pair before the change too."),
        click.option("--rev", default=0, help="Begin at this revision [now]."),
        click.option("--prefix", is_flag=True, help="Watch all keys that start with KEY."),
    ):
        command = option(command)
    return command


@click.command(cls=DashedCommand, help=_HELP, short_help="See changes")
@click.argument("args", metavar="[KEY] [RANGE_END] [-- PROGRAM ...]", nargs=-1, type=Bytes())
@_watch_options
@click.option("-i", "--interactive", is_flag=True, help="Take watches from standard input.")
@click.option("-f", "--forever", is_flag=True, help="As etcdctl v2: until interrupted.")
@click.option("-r", "--recursive", is_flag=True, help="As etcdctl v2: all keys below KEY too.")
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    args: tuple[bytes, ...],
    interactive: bool,
    forever: bool,
    recursive: bool,
    **options: Any,
) -> None:
    """Follow keys until interrupted."""
    settings = settings_of(ctx)
    program = list(ctx.meta.get(AFTER_DASHES, []))
    if forever or recursive:
        from kvstore.cli.kvctl.v2.watch import follow

        if len(args) != 1:
            raise BadArguments("watch -f -r needs one key")
        follow(settings, args[0], forever, recursive, options["rev"], program)
        return
    printer = settings.printer()
    if interactive:
        settings.run(lambda client: _prompt(client, printer))
        return
    line = watch_line(args, program, True, **options)
    settings.run(lambda client: _follow(client, printer, line))


async def _follow(client: AsyncClient, printer: Printer, line: WatchLine) -> None:
    from kvstore.client import Watch

    async with Watch(client.connection, line.request) as followed:
        await _print(followed, printer, line)


async def _print(followed: Watch, printer: Printer, line: WatchLine) -> None:
    """Print what the watch brings until it ends; fails if the server ends it."""
    from kvstore.client import Compacted, WatchCanceled

    try:
        async for message in followed.messages():
            if message.created:
                continue
            if not message.events:
                printer.write(f"progress notify: {message.header.revision}")
            else:
                printer.watch(message)
            for event in message.events:
                run_program(line.program, _environment(event, message.header.revision))
    except (Compacted, WatchCanceled) as ended:
        reason = COMPACTED.message if isinstance(ended, Compacted) else str(ended)
        print(f"watch was canceled ({reason})", file=sys.stderr)
        raise Failure("watch is canceled by the server", EXIT_INTERRUPTED) from None


def _environment(event: mvccpb.Event, revision: int) -> dict[str, str]:
    return {
        "ETCD_WATCH_REVISION": str(revision),
        "ETCD_WATCH_EVENT_TYPE": f'"{mvccpb.Event.EventType.Name(event.type)}"',
        "ETCD_WATCH_KEY": quote(event.kv.key),
        "ETCD_WATCH_VALUE": quote(event.kv.value),
    }


def run_program(program: list[str], variables: dict[str, str]) -> None:
    """Run a program with the event in its environment; fails if it does."""
    if not program:
        return
    try:
        ended = subprocess.run(program, env={**os.environ, **variables}, check=False)
    except OSError as error:
        raise Failure(f"cannot run {program[0]}: {error.strerror}") from None
    if ended.returncode != 0:
        raise Failure(f'command "{" ".join(program)}" failed with status {ended.returncode}')


@click.command("watch", cls=DashedCommand)
@click.argument("args", nargs=-1, type=Bytes())
@_watch_options
def _typed_watch(**options: Any) -> None:
    """The options that a typed ``watch`` takes; only parsed, never run."""


def _typed(line: str) -> WatchLine:
    """Read a line typed at the prompt. Fails with what to type."""
    words = [word.decode("utf-8", "surrogateescape") for word in split_arguments(line)]
    if words[0] != "watch":
        raise Failure(f"Invalid command {line} (only support watch)")
    if len(words) == 1:
        raise Failure("Invalid command watch (command type or key is not provided)")
    context = _typed_watch.make_context("watch", words[1:])
    options = dict(context.params)
    return watch_line(options.pop("args"), context.meta.get(AFTER_DASHES, []), False, **options)


async def _prompt(client: AsyncClient, printer: Printer) -> None:
    """Take ``watch ...`` and ``progress`` lines from standard input until it ends."""
    try:
        async with asyncio.TaskGroup() as tasks:
            await _take_lines(client, printer, tasks)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _take_lines(client: AsyncClient, printer: Printer, tasks: asyncio.TaskGroup) -> None:
    from kvstore.client import Watch

    watches: list[Watch] = []
    while True:
        raw = await asyncio.to_thread(sys.stdin.buffer.readline)
        if not raw:
            raise Failure("Error reading watch request line: EOF", EXIT_INVALID_INPUT)
        line = raw.decode("utf-8", "surrogateescape").strip()
        if line == "progress":
            for each in watches:
                await each.request_progress()
            continue
        try:
            if not line:
                raise Failure("Invalid command:  (watch and progress supported)")
            typed = _typed(line)
        except (Failure, click.UsageError, ValueError) as error:
            print(error, file=sys.stderr)
            continue
        followed = Watch(client.connection, typed.request)
        watches.append(followed)
        tasks.create_task(_print(followed, printer, typed))
