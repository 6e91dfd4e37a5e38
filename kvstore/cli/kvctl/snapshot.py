"""``snapshot save``: a verified backup of one member."""

from __future__ import annotations

import click

from kvstore.cli.kvctl.failures import EXIT_INTERRUPTED, BadArguments, Failure
from kvstore.cli.kvctl.settings import settings_of
from kvstore.errors import EtcdError

_HELP = """Save, inspect and restore backups.

\b
Examples:
  kvctl snapshot save backup.db
  kvctl snapshot status backup.db -w table
"""


@click.group(help=_HELP, short_help="Backups", no_args_is_help=True)
def snapshot() -> None:
    """The group."""


@snapshot.command()
@click.argument("args", metavar="FILE", nargs=-1)
@click.pass_context
def save(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Save the whole state of one server to FILE, checked against its checksum.

    \b
    Example:
      kvctl snapshot save backup.db --endpoints 10.0.1.10:2379
    """
    from kvstore.client import SnapshotDamaged

    if len(args) != 1:
        raise BadArguments("snapshot save expects one argument")
    settings = settings_of(ctx)
    if len(settings.endpoint_list) > 1:
        listed = " ".join(settings.endpoint_list)
        raise Failure(
            f"snapshot must be requested to one selected node, not multiple [{listed}]",
            EXIT_INTERRUPTED,
        )
    try:
        settings.run(lambda client: client.snapshot(args[0]))
    except (EtcdError, SnapshotDamaged) as error:
        raise Failure(str(error), EXIT_INTERRUPTED) from None
    except OSError as error:
        raise Failure(
            f"could not open {error.filename} ({error.strerror})", EXIT_INTERRUPTED
        ) from None
    click.echo(f"Snapshot saved at {args[0]}")
