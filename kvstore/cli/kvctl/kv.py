"""``get``, ``put``, ``del`` and ``compaction``.

Each command's options become a request in one function, which the lines of a transaction use too.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from kvstore.cli.kvctl.failures import EXIT_BAD_FEATURE, BadArguments, Failure
from kvstore.cli.kvctl.settings import settings_of
from kvstore.pb import etcdserverpb_pb2 as pb

_TARGETS: Final = {
    "": pb.RangeRequest.KEY,
    "CREATE": pb.RangeRequest.CREATE,
    "KEY": pb.RangeRequest.KEY,
    "MODIFY": pb.RangeRequest.MOD,
    "VALUE": pb.RangeRequest.VALUE,
    "VERSION": pb.RangeRequest.VERSION,
}
_ORDERS: Final = {
    "": pb.RangeRequest.NONE,
    "ASCEND": pb.RangeRequest.ASCEND,
    "DESCEND": pb.RangeRequest.DESCEND,
}


class Bytes(click.ParamType[bytes]):
    """An argument as the bytes that the shell passed."""

    name = "bytes"

    def convert(
        self, value: str | bytes, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the bytes."""
        return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def bounds(key: bytes, end: bytes | None, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Return the range that the arguments mean. Fails if they contradict each other."""
    from kvstore.client.records import key_range

    if prefix and from_key:
        raise BadArguments("`--prefix` and `--from-key` cannot be set at the same time, choose one")
    if (prefix or from_key) and end is not None:
        raise BadArguments(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
        )
    return key_range(key, end, prefix=prefix, from_key=from_key)


def lease_id_of(text: str, what: str = "bad lease ID") -> int:
    """Read a lease's ID in hexadecimal."""
    try:
        return int(text, 16)
    except ValueError:
        raise BadArguments(
            f'{what} (strconv.ParseInt: parsing "{text}": invalid syntax), expecting ID in Hex'
        ) from None


def range_request(args: tuple[bytes, ...], **options: Any) -> pb.RangeRequest:
    """Return the request of ``get``'s arguments and options."""
    if not 1 <= len(args) <= 2:
        raise BadArguments(
            "get command needs one argument as key and an optional argument as range_end"
        )
    if options["keys_only"] and options["count_only"]:
        raise BadArguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one"
        )
    end = args[1] if len(args) == 2 else None
    key, range_end = bounds(args[0], end, options["prefix"], options["from_key"])
    for name, known, what in (("sort_by", _TARGETS, "target"), ("order", _ORDERS, "order")):
        if options[name].upper() not in known:
            raise Failure(f"bad sort {what} {options[name]}", EXIT_BAD_FEATURE)
    if options["consistency"] not in ("l", "s"):
        raise Failure(f'unknown consistency flag "{options["consistency"]}"', EXIT_BAD_FEATURE)
    target, order = _TARGETS[options["sort_by"].upper()], _ORDERS[options["order"].upper()]
    if target == pb.RangeRequest.KEY and order == pb.RangeRequest.ASCEND:
        order = pb.RangeRequest.NONE  # keys come in this order anyway
    return pb.RangeRequest(
        key=key,
        range_end=range_end,
        limit=options["limit"],
        revision=options["rev"],
        sort_order=order,
        sort_target=target,
        serializable=options["consistency"] == "s",
        keys_only=options["keys_only"],
        count_only=options["count_only"],
        min_mod_revision=options["min_mod_rev"],
        max_mod_revision=options["max_mod_rev"],
        min_create_revision=options["min_create_rev"],
        max_create_revision=options["max_create_rev"],
    )


_GET_HELP = """Read a key, the range [KEY, RANGE_END), all keys with a prefix, or all from a key on.

\b
Examples:
  kvctl get /config/title
  kvctl get /config/ --prefix --keys-only
  kvctl get "" --from-key --limit 10          the first ten keys of all
  kvctl get /config/title --rev 42            as it was at revision 42
  kvctl get /config/ --prefix --sort-by MODIFY --order DESCEND
  kvctl get /config/title -w json
"""


@click.command(help=_GET_HELP, short_help="Read keys")
@click.argument("args", metavar="KEY [RANGE_END]", nargs=-1, type=Bytes())
@click.option("--prefix", is_flag=True, help="Read all keys that start with KEY.")
@click.option("--from-key", is_flag=True, help="Read all keys from KEY on, in byte order.")
@click.option("--limit", default=0, help="At most so many keys [no limit].")
@click.option("--rev", default=0, help="Read the store as it was at this revision [now].")
@click.option("--sort-by", default="", help="CREATE, KEY, MODIFY, VALUE or VERSION.")
@click.option("--order", default="", help="ASCEND or DESCEND [ASCEND].")
@click.option("--consistency", default="l", help="l: linearizable; s: serializable, perhaps stale.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--count-only", is_flag=True, help="Only count the keys.")
@click.option("--print-value-only", is_flag=True, help="Print values alone (simple format).")
@click.option("--min-mod-rev", default=0, help="Only keys changed at this revision or later.")
@click.option("--max-mod-rev", default=0, help="Only keys changed at this revision or before.")
@click.option("--min-create-rev", default=0, help="Only keys created at this revision or later.")
@click.option("--max-create-rev", default=0, help="Only keys created at this revision or before.")
@click.pass_context
def get(
    ctx: click.Context, /, args: tuple[bytes, ...], print_value_only: bool, **options: Any
) -> None:
    """Read keys and print them."""
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    request = range_request(args, **options)
    printer = settings.printer()
    if print_value_only and settings.write_out != "simple":
        raise BadArguments("print-value-only is only for `--write-out=simple`")
    answer = settings.run(lambda client: client.connection.call(rpcs.RANGE, request))
    if options["count_only"] and settings.write_out == "simple":
        printer.write(str(answer.count))
    else:
        printer.get(answer, print_value_only)


def put_request(args: tuple[bytes, ...], stdin: bool = True, **options: Any) -> pb.PutRequest:
    """Return the request of ``put``'s arguments and options; a missing value is read, if it may."""
    value = b""
    if options["ignore_value"]:
        if len(args) != 1:
            raise BadArguments("put command needs only 1 argument when 'ignore-value' is set")
    elif len(args) == 2:
        value = args[1]
    elif len(args) == 1 and stdin:
        value = sys.stdin.buffer.read()
    if not 1 <= len(args) <= 2 or (len(args) == 1 and not stdin and not options["ignore_value"]):
        raise BadArguments("put command needs 1 argument and input from stdin or 2 arguments")
    return pb.PutRequest(
        key=args[0],
        value=value,
        lease=lease_id_of(options["lease"]),
        prev_kv=options["prev_kv"],
        ignore_value=options["ignore_value"],
        ignore_lease=options["ignore_lease"],
    )


_PUT_HELP = """Store VALUE at KEY; without VALUE, what standard input carries.

\b
Examples:
  kvctl put /config/title tizi365
  kvctl put /config/nginx < nginx.conf
  kvctl put -- /key -value-with-a-dash
  kvctl put /services/web/1 10.0.1.10:80 --lease 694d77aa9e38260f
"""


@click.command(help=_PUT_HELP, short_help="Store a value")
@click.argument("args", metavar="KEY [VALUE]", nargs=-1, type=Bytes())
@click.option("--lease", default="0", help="ID of the lease to attach, in hexadecimal.")
@click.option("--prev-kv", is_flag=True, help="Print the pair as it was before.")
@click.option("--ignore-value", is_flag=True, help="Keep the value, change the lease only.")
@click.option("--ignore-lease", is_flag=True, help="Keep the lease, change the value only.")
@click.pass_context
def put(ctx: click.Context, /, args: tuple[bytes, ...], **options: Any) -> None:
    """Store a value and print what the server said."""
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    request = put_request(args, **options)
    printer = settings.printer()
    printer.put(settings.run(lambda client: client.connection.call(rpcs.PUT, request)))


def delete_request(args: tuple[bytes, ...], **options: Any) -> pb.DeleteRangeRequest:
    """Return the request of ``del``'s arguments and options."""
    if not 1 <= len(args) <= 2:
        raise BadArguments(
            "del command needs one argument as key and an optional argument as range_end"
        )
    end = args[1] if len(args) == 2 else None
    key, range_end = bounds(args[0], end, options["prefix"], options["from_key"])
    return pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=options["prev_kv"])


_DEL_HELP = """Delete a key, a range, all keys with a prefix, or all from a key on.

Prints how many keys there were. A range is [KEY, RANGE_END).

\b
Examples:
  kvctl del /config/title
  kvctl del /config/ --prefix --prev-kv
"""


@click.command("del", help=_DEL_HELP, short_help="Delete keys")
@click.argument("args", metavar="KEY [RANGE_END]", nargs=-1, type=Bytes())
@click.option("--prefix", is_flag=True, help="Delete all keys that start with KEY.")
@click.option("--from-key", is_flag=True, help="Delete all keys from KEY on, in byte order.")
@click.option("--prev-kv", is_flag=True, help="Print the deleted pairs.")
@click.pass_context
def delete(ctx: click.Context, /, args: tuple[bytes, ...], **options: Any) -> None:
    """Delete keys and print how many there were."""
    from kvstore.client import rpcs

    settings = settings_of(ctx)
    request = delete_request(args, **options)
    printer = settings.printer()
    printer.delete(settings.run(lambda client: client.connection.call(rpcs.DELETE_RANGE, request)))


_COMPACTION_HELP = """Forget the history before REVISION; what is stored now stays.

\b
Examples:
  kvctl compaction 1042
  kvctl compaction 1042 --physical            wait until the space is free
"""


@click.command(help=_COMPACTION_HELP, short_help="Forget history")
@click.argument("args", metavar="REVISION", nargs=-1)
@click.option("--physical", is_flag=True, help="Wait until the space is free.")
@click.pass_context
def compaction(ctx: click.Context, args: tuple[str, ...], physical: bool) -> None:
    """Compact and say so."""
    from kvstore.client import rpcs

    if len(args) != 1:
        raise BadArguments("compaction command needs 1 argument")
    try:
        revision = int(args[0])
    except ValueError:
        raise Failure(f'strconv.ParseInt: parsing "{args[0]}": invalid syntax') from None
    request = pb.CompactionRequest(revision=revision, physical=physical)
    settings_of(ctx).run(lambda client: client.connection.call(rpcs.COMPACT, request))
    click.echo(f"compacted revision {revision}")
