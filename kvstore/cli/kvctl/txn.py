"""``txn``: a transaction from text, in etcdctl's grammar.

Three blocks, each ended by an empty line: comparisons, operations if all of them hold, operations
if not. With ``-i`` a heading says which block comes next.
"""

from __future__ import annotations

import re
import sys
from typing import Final

import click

from kvstore.cli.kvctl import kv
from kvstore.cli.kvctl.failures import EXIT_INVALID_INPUT, BadArguments, Failure
from kvstore.cli.kvctl.golang import QUOTED, split_arguments, unquote
from kvstore.cli.kvctl.settings import settings_of
from kvstore.pb import etcdserverpb_pb2 as pb

_COMPARISON: Final = re.compile(rf"(\w+)\(\s*({QUOTED})\s*\)\s*(\S+)\s+({QUOTED})", re.DOTALL)
_OPERATORS: Final = {
    "=": pb.Compare.EQUAL,
    "!=": pb.Compare.NOT_EQUAL,
    ">": pb.Compare.GREATER,
    "<": pb.Compare.LESS,
}
_TARGETS: Final = {
    "ver": (pb.Compare.VERSION, "version"),
    "version": (pb.Compare.VERSION, "version"),
    "c": (pb.Compare.CREATE, "create_revision"),
    "create": (pb.Compare.CREATE, "create_revision"),
    "m": (pb.Compare.MOD, "mod_revision"),
    "mod": (pb.Compare.MOD, "mod_revision"),
    "val": (pb.Compare.VALUE, "value"),
    "value": (pb.Compare.VALUE, "value"),
    "lease": (pb.Compare.LEASE, "lease"),
}

_HELP = """Do several operations at once: either all, or those for when a condition fails.

Reads three blocks from standard input, each ended by an empty line: conditions, what to do if all
of them hold, what to do if not. Conditions are value, version, create, mod or lease of a key,
compared by =, !=, < or > with a text in double quotes.

\b
Example:
  kvctl txn <<'END'
  value("/config/title") = "tizi365"
  \b
  put /config/title "new title"
  get /config/title
  \b
  get /config/title
  \b
  END
"""


def parse_compare(line: str) -> pb.Compare:
    """Read one comparison: ``value("/a") = "1"``. Fails saying what is wrong with it."""
    found = _COMPARISON.match(line)
    if found is None:
        raise Failure(f"malformed comparison: {line}", EXIT_INVALID_INPUT)
    target, key, operator, operand = found.groups()
    if target not in _TARGETS:
        raise Failure(f"malformed comparison: {line} (unknown target {target})", EXIT_INVALID_INPUT)
    if operator not in _OPERATORS:
        raise Failure(
            f"malformed comparison: {line} (unknown operator {operator}: =, !=, < or >)",
            EXIT_INVALID_INPUT,
        )
    kind, field = _TARGETS[target]
    try:
        value = unquote(operand)
        number = 0 if field == "value" else int(value, 16 if field == "lease" else 10)
        message = pb.Compare(result=_OPERATORS[operator], target=kind, key=unquote(key))
    except ValueError:
        raise Failure(f"invalid txn compare request: {line}", EXIT_INVALID_INPUT) from None
    if field == "value":
        message.value = value
    else:
        setattr(message, field, number)
    return message


def parse_request(line: str) -> pb.RequestOp:
    """Read one operation: a ``get``, ``put`` or ``del`` as on the command line."""
    try:
        words = split_arguments(line)
    except ValueError as error:
        raise Failure(f"invalid txn request: {line} ({error})", EXIT_INVALID_INPUT) from None
    if len(words) < 2:
        raise Failure(f"invalid txn compare request: {line}", EXIT_INVALID_INPUT)
    name = words[0].decode("utf-8", "replace")
    command = {"get": kv.get, "put": kv.put, "del": kv.delete}.get(name)
    if command is None:
        raise Failure(f"invalid txn request: {line}", EXIT_INVALID_INPUT)
    arguments = [word.decode("utf-8", "surrogateescape") for word in words[1:]]
    try:
        options = dict(command.make_context(name, arguments, resilient_parsing=False).params)
    except click.UsageError as error:
        raise Failure(
            f"invalid txn request: {line} ({error.format_message()})", EXIT_INVALID_INPUT
        ) from None
    args = options.pop("args")
    if name == "get":
        options.pop("print_value_only")
        return pb.RequestOp(request_range=kv.range_request(args, **options))
    if name == "put":
        return pb.RequestOp(request_put=kv.put_request(args, stdin=False, **options))
    return pb.RequestOp(request_delete_range=kv.delete_request(args, **options))


def _block(heading: str, interactive: bool) -> list[str]:
    """Read lines up to an empty one."""
    if interactive:
        click.echo(heading)
    lines: list[str] = []
    while True:
        raw = sys.stdin.buffer.readline()
        if not raw:
            raise Failure("EOF", EXIT_INVALID_INPUT)
        line = raw.decode("utf-8", "surrogateescape").strip()
        if not line:
            return lines
        lines.append(line)


@click.command(help=_HELP, short_help="Several operations at once")
@click.argument("args", metavar="", nargs=-1)
@click.option("-i", "--interactive", is_flag=True, help="Say which block comes next.")
@click.pass_context
def txn(ctx: click.Context, args: tuple[str, ...], interactive: bool) -> None:
    """Read a transaction, run it, and print what it returned."""
    from kvstore.client import rpcs

    if args:
        raise BadArguments("txn command does not accept argument")
    settings = settings_of(ctx)
    printer = settings.printer()
    compare = [parse_compare(line) for line in _block("compares:", interactive)]
    success = [
        parse_request(line) for line in _block("success requests (get, put, del):", interactive)
    ]
    failure = [
        parse_request(line) for line in _block("failure requests (get, put, del):", interactive)
    ]
    request = pb.TxnRequest(compare=compare, success=success, failure=failure)
    printer.txn(settings.run(lambda client: client.connection.call(rpcs.TXN, request)))
