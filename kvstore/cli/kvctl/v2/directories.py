"""``mkdir``, ``setdir``, ``updatedir`` and ``rmdir``, as etcdctl v2 has them.

A directory's time to live is that of its marker: when it ends, an empty directory is gone, and keys
in it stay.
"""

from __future__ import annotations

import click

from kvstore.cli.kvctl.kv import Bytes
from kvstore.cli.kvctl.v2.commands import key_of, show_removed, with_tree

_ttl = click.option("--ttl", default=0, help="Seconds until the empty directory goes [never].")


@click.command(short_help="Make a directory")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@_ttl
@click.pass_context
def mkdir(ctx: click.Context, args: tuple[bytes, ...], ttl: int) -> None:
    """Make the directory KEY, which must not exist yet.

    \b
    Example:
      kvctl mkdir /config
    """
    key = key_of(args)
    with_tree(ctx, lambda tree: tree.make_directory(key, ttl))


@click.command(short_help="Make a directory, or set its time to live")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@_ttl
@click.pass_context
def setdir(ctx: click.Context, args: tuple[bytes, ...], ttl: int) -> None:
    """Make the directory KEY, or give the one that exists another time to live."""
    key = key_of(args)
    with_tree(ctx, lambda tree: tree.make_directory(key, ttl, anew=False))


@click.command(short_help="Set a directory's time to live")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@_ttl
@click.pass_context
def updatedir(ctx: click.Context, args: tuple[bytes, ...], ttl: int) -> None:
    """Give the directory KEY, which must exist, another time to live."""
    key = key_of(args)
    with_tree(ctx, lambda tree: tree.update_directory(key, ttl))


@click.command(short_help="Remove an empty directory, or a key")
@click.argument("args", metavar="KEY", nargs=-1, type=Bytes())
@click.pass_context
def rmdir(ctx: click.Context, args: tuple[bytes, ...]) -> None:
    """Remove the directory KEY if it is empty, or the key KEY.

    \b
    Example:
      kvctl rmdir /config
    """
    key = key_of(args)
    show_removed(with_tree(ctx, lambda tree: tree.remove_empty(key)))
