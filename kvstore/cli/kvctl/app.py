"""The program: its list of commands, how it reads arguments, and how it ends.

The list carries each command's module and one line of help, so that ``kvctl --help`` imports none
of them. Arguments are read as etcdctl's library does: options anywhere, ``--flag=true``,
``-w=json``, and a command's name may be cut short as long as it is clear.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import os
import re
import sys
from typing import Any, Final, NoReturn

import click

from kvstore.cli.kvctl.failures import EXIT_ERROR, Failure
from kvstore.cli.kvctl.settings import shared_options

PROGRAM: Final = "kvctl"

INTRODUCTION: Final = """Read, write and watch keys of a kvstore or etcd cluster.

\b
Try:
  kvctl put /config/title tizi365     store a value
  kvctl get /config/title             read it
  kvctl get /config/ --prefix         read all below
  kvctl watch /config/ --prefix       see changes as they happen
  kvctl help put                      more on one command

Servers are named with --endpoints 10.0.1.10:2379,10.0.1.11:2379 or in the environment as
ETCDCTL_ENDPOINTS. ETCDCTL_API=2 gives etcdctl's older commands (set, get, rm, ls, watch -f -r).
"""

_FLAG_VALUE: Final = re.compile(r"(--[a-z-]+)=(true|false|t|f|1|0)", re.IGNORECASE)
_FLAGS: Final = frozenset(
    {
        "--prefix",
        "--from-key",
        "--keys-only",
        "--count-only",
        "--print-value-only",
        "--prev-kv",
        "--ignore-value",
        "--ignore-lease",
        "--interactive",
        "--progress-notify",
        "--physical",
        "--once",
        "--learner",
        "--keys",
        "--cluster",
        "--listen",
        "--hex",
        "--debug",
        "--insecure-transport",
        "--insecure-skip-tls-verify",
        "--skip-hash-check",
    }
)


class LazyGroup(click.Group):
    """Commands that are imported when they are called.

    Args:
        entries: name to ``(module:attribute, one line of help)``; modules below this package.
    """

    def __init__(self, *args: Any, entries: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in order."""
        return sorted(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; a name may be cut short if that is clear."""
        if cmd_name not in self._entries:
            started = [name for name in self._entries if name.startswith(cmd_name)]
            if len(started) != 1:
                return None
            cmd_name = started[0]
        where, _ = self._entries[cmd_name]
        module, _, attribute = where.partition(":")
        command = getattr(importlib.import_module(f"kvstore.cli.kvctl.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{where} is not a command")
        return with_shared_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one fails with what was perhaps meant."""
        command = self.get_command(ctx, args[0])
        if command is None and not args[0].startswith("-"):
            raise Failure(self._unknown(ctx, args[0]))
        return super().resolve_command(ctx, args)

    def _unknown(self, ctx: click.Context, name: str) -> str:
        started = [each for each in self._entries if each.startswith(name)]
        close = started or difflib.get_close_matches(name, self._entries, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        if self._entries is V2_COMMANDS and name in COMMANDS:
            hint = " It is a command of API 3: unset ETCDCTL_API."
        return f'unknown command "{name}" for "{ctx.command_path}".{hint} See {PROGRAM} --help.'

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._entries[name][1]) for name in sorted(self._entries)])


def with_shared_options(command: click.Command) -> click.Command:
    """Return a copy of a command, and of the commands in it, that takes the shared options too."""
    command = copy.copy(command)
    command.params = [*command.params, *shared_options(hidden=True)]
    if isinstance(command, click.Group):
        command.commands = {
            name: with_shared_options(child) for name, child in command.commands.items()
        }
    else:
        command.epilog = f"Options for all commands: {PROGRAM} --help."
    return command


COMMANDS: Final = {
    "get": ("kv:get", "Read a key, a range, or all keys with a prefix"),
    "put": ("kv:put", "Store a value at a key"),
    "del": ("kv:delete", "Delete a key, a range, or all keys with a prefix"),
    "compaction": ("kv:compaction", "Forget the history before a revision"),
    "txn": ("txn:txn", "Several operations at once, on conditions"),
    "watch": ("watch:watch", "See changes as they happen"),
    "lease": ("lease:lease", "Grant, renew, list and revoke leases"),
    "member": ("members:member", "List, add, promote and remove members"),
    "move-leader": ("members:move_leader", "Let another member lead"),
    "endpoint": ("cluster:endpoint", "Health, status and hashes of servers"),
    "alarm": ("cluster:alarm", "List and disarm alarms"),
    "defrag": ("cluster:defrag", "Give freed space back to the file system"),
    "snapshot": ("snapshot:snapshot", "Save, inspect and restore backups"),
    "lock": ("concurrency:lock", "Hold a lock, perhaps while a command runs"),
    "elect": ("concurrency:elect", "Take part in a leader election, or follow it"),
    "version": ("about:version", "Print the version"),
    "completion": ("about:completion", "Print a shell's completion script"),
    "help": ("about:show_help", "Explain a command"),
    "set": ("v2.commands:set_key", "Store a value (as etcdctl v2: prints it)"),
    "rm": ("v2.commands:rm", "Remove a key or a directory (as etcdctl v2)"),
    "mk": ("v2.commands:mk", "Store a value at a new key (as etcdctl v2)"),
    "ls": ("v2.commands:ls", "List a directory (as etcdctl v2)"),
}

V2_COMMANDS: Final = {
    "set": ("v2.commands:set_key", "set the value of a key"),
    "get": ("v2.commands:get", "retrieve the value of a key"),
    "mk": ("v2.commands:mk", "make a new key with a given value"),
    "mkdir": ("v2.directories:mkdir", "make a new directory"),
    "rm": ("v2.commands:rm", "remove a key or a directory"),
    "rmdir": ("v2.directories:rmdir", "remove an empty directory or a key"),
    "ls": ("v2.commands:ls", "list a directory"),
    "setdir": ("v2.directories:setdir", "make a directory, or set its time to live"),
    "update": ("v2.commands:update", "change the value of a key that exists"),
    "updatedir": ("v2.directories:updatedir", "set the time to live of a directory that exists"),
    "watch": ("v2.watch:watch", "watch a key for changes"),
    "exec-watch": ("v2.watch:exec_watch", "run a program at each change"),
    "version": ("about:version", "print the version"),
    "help": ("about:show_help", "explain a command"),
}

V2_INTRODUCTION: Final = """etcdctl's commands of API version 2, on the data of a v3 cluster.

\b
Try:
  kvctl set /config/title tizi365     store a value
  kvctl get /config/title             read it
  kvctl ls -r /                       list all
  kvctl watch -f -r /config           see changes as they happen

Unset ETCDCTL_API for the commands of version 3 (put, txn, lease and more).
"""


def program(api: str) -> LazyGroup:
    """Return the program for an API version, "2" or "3". Fails for any other."""
    if api not in ("2", "3"):
        raise Failure(f"ETCDCTL_API={api} is not supported: unset it for 3, or set it to 2")
    return LazyGroup(
        name=PROGRAM,
        entries=V2_COMMANDS if api == "2" else COMMANDS,
        help=V2_INTRODUCTION if api == "2" else INTRODUCTION,
        params=list[click.Parameter](shared_options(hidden=False)),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
    )


def normalised(arguments: list[str]) -> list[str]:
    """Return arguments as click reads them: ``--flag=true`` and ``-w=json`` are written out."""
    result: list[str] = []
    for index, argument in enumerate(arguments):
        if argument == "--":
            return result + arguments[index:]
        flag = _FLAG_VALUE.fullmatch(argument)
        if flag is not None and flag[1] in _FLAGS:
            if flag[2].lower() in ("true", "t", "1"):
                result.append(flag[1])
            elif flag[1] == "--insecure-transport":
                result.append("--no-insecure-transport")
        elif argument.startswith("-w="):
            result += ["-w", argument[3:]]
        else:
            result.append(argument)
    return result


def run(arguments: list[str] | None = None) -> NoReturn:
    """Run the program and exit: 0, or with one line on standard error and etcdctl's status."""
    given = normalised(sys.argv[1:] if arguments is None else arguments)
    api = os.environ.get("ETCDCTL_API") or "3"
    sys.exit(_status(given, api))


def _status(given: list[str], api: str) -> int:
    try:
        outcome = program(api).main(given, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except Failure as failure:
        if str(failure):
            lead = "Error:  " if api == "2" and failure.lead else failure.lead
            click.echo(f"{lead}{failure}", err=True)
        return failure.status
    except click.exceptions.NoArgsIsHelpError as shown:
        click.echo(shown.format_message())
        return 0
    except click.UsageError as wrong:
        where = wrong.ctx.command_path if wrong.ctx is not None else PROGRAM
        click.echo(f"Error: {wrong.format_message()} See {where} -h.", err=True)
        return EXIT_ERROR
    except click.Abort:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; there is no one left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:
        return _failed_call(error)
    return outcome if isinstance(outcome, int) else 0


def _failed_call(error: Exception) -> int:
    """Report what the client raised; anything else is a fault of ours and goes up."""
    from kvstore.client import EndpointsUnavailable, EtcdError, SnapshotDamaged

    if isinstance(error, EndpointsUnavailable):
        hint = "is a server running there? --endpoints or ETCDCTL_ENDPOINTS name others"
        click.echo(f"Error: {error}; {hint}", err=True)
    elif isinstance(error, EtcdError | SnapshotDamaged | OSError):
        click.echo(f"Error: {error}", err=True)
    else:
        raise error
    return EXIT_ERROR
