"""``version``, ``completion`` and ``help``."""

from __future__ import annotations

import importlib.metadata

import click
from click.shell_completion import get_completion_class

from kvstore import ETCD_VERSION
from kvstore.cli.kvctl.failures import Failure


@click.command()
def version() -> None:
    """Print kvctl's version, and that of the API which it speaks."""
    click.echo(f"kvctl version: {importlib.metadata.version('raftyard')}")
    click.echo(f"API version: {ETCD_VERSION.rpartition('.')[0]}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that makes the shell complete kvctl's commands and options.

    \b
    Example:
      source <(kvctl completion bash)
    """
    found = get_completion_class(shell)
    if found is None:
        raise Failure(f"no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "kvctl", "_KVCTL_COMPLETE").source())


@click.command("help")
@click.argument("names", metavar="[COMMAND ...]", nargs=-1)
@click.pass_context
def show_help(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Explain a command, or list all.

    \b
    Example:
      kvctl help lease grant
    """
    context = ctx.find_root()
    for name in names:
        group = context.command
        found = group.get_command(context, name) if isinstance(group, click.Group) else None
        if found is None:
            raise Failure(f'unknown help topic "{" ".join(names)}". See kvctl --help.')
        context = click.Context(found, parent=context, info_name=name)
    click.echo(context.get_help())
