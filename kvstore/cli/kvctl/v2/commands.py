"""``set``, ``get``, ``mk``, ``update``, ``rm`` and ``ls``, as etcdctl v2 has them.

Under API 3 keys are taken as they are typed; under API 2 they are paths, and ``a`` means ``/a``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from kvstore.cli.kvctl.failures import Failure
from kvstore.cli.kvctl.kv import Bytes
from kvstore.cli.kvctl.settings import settings_of

if TYPE_CHECKING:
    from kvstore.cli.kvctl.v2.tree import Tree
    from kvstore.client import KeyValue

R = TypeVar("R")


def key_of(args: tuple[bytes, ...]) -> bytes:
    """Return the key among the arguments. Fails if there is none."""
    if not args:
        raise Failure("key required")
    from kvstore.cli.kvctl.v2.tree import cleaned

    if os.environ.get("ETCDCTL_API") == "2":
        return cleaned(args[0])
    return args[0].rstrip(b"/") or b"/"


def value_of(args: tuple[bytes, ...]) -> bytes:
    """Return the value among the arguments, or what is piped in. Fails if there is neither."""
    if len(args) > 1:
        return args[1]
    if sys.stdin.isatty():
        raise Failure("value required")
    data = sys.stdin.buffer.read()
    if not data:
        raise Failure("value required")
    return data


def with_tree(ctx: click.Context, work: Callable[[Tree], Awaitable[R]]) -> R:
    """Run ``work`` on the tree of files and directories."""
    from kvstore.cli.kvctl.v2.tree import Tree

    return settings_of(ctx).run(lambda client: work(Tree(client)))


def write_line(data: bytes) -> None:
    """Print bytes and a line's end."""
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def show_removed(kv: KeyValue | None, compared: bool = False) -> None:
    """Print the value that a removed file had; nothing for a directory."""
    if compared:
        write_line(b"")
    elif kv is not None:
        write_line(b"PrevNode.Value: " + kv.value)


_ttl = click.option("--ttl", default=0, help="Seconds until the key removes itself [never].")


@click.command("set", short_help="Store a value")
@click.argument("args", metavar="KEY [VALUE]", nargs=-1, type=Bytes())
@_ttl
@click.option("--swap-with-value", type=Bytes(), help="Only if the value is this one.")
@click.option("--swap-with-index", default=0, help="Only if the last change was at this index.")
@click.pass_context
def set_key(
    ctx: click.Context,
    args: tuple[bytes, ...],
    ttl: int,
    swap_with_value: bytes | None,
    swap_with_index: int,
) -> None:
    """Store VALUE at KEY, or what standard input carries, and print it.

    \b
    Examples:
      kvctl set /config/title tizi365
      kvctl set /sessions/1 alive --ttl 60
      kvctl set -- /key -value-with-a-dash
    """
    key, value = key_of(args), value_of(args)
    with_tree(ctx, lambda tree: tree.set(key, value, ttl, swap_with_value, swap_with_index))
    write_line(value)


@click.command(short_help="Read a value")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@click.option("-q", "--quorum", is_flag=True, help="Accepted; reads are always linearizable.")
@click.option("--sort", is_flag=True, help="Accepted; a value has no order.")
@click.pass_context
def get(ctx: click.Context, args: tuple[bytes, ...], quorum: bool, sort: bool) -> None:
    """Print the value of KEY.

    \b
    Example:
      kvctl get /config/title
    """
    key = key_of(args)
    write_line(with_tree(ctx, lambda tree: tree.get(key)).value)


@click.command(short_help="Store a value at a new key")
@click.argument("args", metavar="KEY [VALUE]", nargs=-1, type=Bytes())
@_ttl
@click.option("--in-order", is_flag=True, help="Make a key that grows, in the directory KEY.")
@click.pass_context
def mk(ctx: click.Context, args: tuple[bytes, ...], ttl: int, in_order: bool) -> None:
    """Store VALUE at KEY if there is no such key yet, and print it.

    \b
    Examples:
      kvctl mk /config/title tizi365
      kvctl mk --in-order /queue job1
    """
    key, value = key_of(args), value_of(args)
    if in_order:
        with_tree(ctx, lambda tree: tree.make_in_order(key, value, ttl))
    else:
        with_tree(ctx, lambda tree: tree.make(key, value, ttl))
    write_line(value)


@click.command(short_help="Change a value")
@click.argument("args", metavar="KEY [VALUE]", nargs=-1, type=Bytes())
@_ttl
@click.pass_context
def update(ctx: click.Context, args: tuple[bytes, ...], ttl: int) -> None:
    """Store VALUE at KEY if there is such a key already, and print it.

    \b
    Example:
      kvctl update /config/title "new title"
    """
    key, value = key_of(args), value_of(args)
    with_tree(ctx, lambda tree: tree.update(key, value, ttl))
    write_line(value)


@click.command(short_help="Remove a key or a directory")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@click.option("-r", "--recursive", is_flag=True, help="A directory, with all that is in it.")
@click.option("--dir", "directory", is_flag=True, help="A directory that is empty, or a key.")
@click.option("--with-value", type=Bytes(), help="Only if the value is this one.")
@click.option("--with-index", default=0, help="Only if the last change was at this index.")
@click.pass_context
def rm(
    ctx: click.Context,
    args: tuple[bytes, ...],
    recursive: bool,
    directory: bool,
    with_value: bytes | None,
    with_index: int,
) -> None:
    """Remove KEY and print the value that it had.

    \b
    Examples:
      kvctl rm /config/title
      kvctl rm -r /config
    """
    key = key_of(args)

    async def remove(tree: Tree) -> KeyValue | None:
        if recursive:
            return await tree.remove_tree(key)
        if directory:
            return await tree.remove_empty(key)
        return await tree.remove(key, with_value, with_index)

    compared = with_value is not None or with_index != 0
    show_removed(with_tree(ctx, remove), compared and not (recursive or directory))


@click.command(short_help="List a directory")
@click.argument("args", metavar="[KEY]", nargs=-1, type=Bytes())
@click.option("-r", "--recursive", is_flag=True, help="With all directories in it.")
@click.option("-p", "slashes", is_flag=True, help="Put a slash behind the names of directories.")
@click.option("--sort", is_flag=True, help="Accepted; names always come in order.")
@click.option("-q", "--quorum", is_flag=True, help="Accepted; reads are always linearizable.")
@click.pass_context
def ls(
    ctx: click.Context,
    args: tuple[bytes, ...],
    recursive: bool,
    slashes: bool,
    sort: bool,
    quorum: bool,
) -> None:
    """List the names in the directory KEY [/].

    \b
    Examples:
      kvctl ls
      kvctl ls -r -p /config
    """
    key = key_of(args or (b"/",))
    for name in with_tree(ctx, lambda tree: tree.names(key, recursive, slashes)):
        write_line(name)
