"""``snapshot``: save a verified backup, look into one, make data directories from one."""

from __future__ import annotations

from pathlib import Path

import click

from kvstore.cli.kvctl.failures import EXIT_INTERRUPTED, BadArguments, Failure
from kvstore.cli.kvctl.settings import settings_of
from kvstore.errors import EtcdError

_HELP = """Save, inspect and restore backups.

\b
Examples:
  kvctl snapshot save backup.db
  kvctl snapshot status backup.db -w table
  kvctl snapshot restore backup.db --name infra0 --data-dir infra0.etcd
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


@snapshot.command()
@click.argument("args", metavar="FILE", nargs=-1)
@click.pass_context
def status(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Verify a backup and show its hash, revision, stored versions of keys, and size.

    \b
    Example:
      kvctl snapshot status backup.db -w table
    """
    if len(args) != 1:
        raise BadArguments("snapshot status requires exactly one argument")
    from kvstore.cli.kvctl.backup import status_of

    printer = settings_of(ctx).printer()
    printer.snapshot_status(status_of(Path(args[0])))


@snapshot.command()
@click.argument("args", metavar="FILE", nargs=-1)
@click.option("--name", default="default", help="This member's name [default].")
@click.option("--data-dir", default="", help="The directory to make [NAME.etcd].")
@click.option("--initial-cluster", default="", help="All members: NAME=PEER_URL,...")
@click.option("--initial-cluster-token", default="etcd-cluster", help="The new cluster's token.")
@click.option(
    "--initial-advertise-peer-urls",
    default="http://localhost:2380",
    help="This member's peer URL [http://localhost:2380].",
)
@click.option("--engine", default="", help="The engine that it will run on [native].")
def restore(args: tuple[str, ...], **options: str) -> None:
    """Make the data directory of one member of a new cluster from a backup of kvstore.

    Do it for each member, with the same FILE, --initial-cluster and --initial-cluster-token; then
    start each with kvstore and the same flags. A token of its own keeps the new cluster from ever
    being taken for the old one.

    \b
    Example:
      kvctl snapshot restore backup.db --name infra0 --data-dir infra0.etcd \\
        --initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380 \\
        --initial-cluster-token restored-1 \\
        --initial-advertise-peer-urls http://10.0.1.10:2380
    """
    if len(args) != 1:
        raise BadArguments("snapshot restore requires exactly one argument")
    from kvstore.cli.kvctl.backup import restore as restore_member

    flags = [f"--{name.replace('_', '-')}={text}" for name, text in options.items() if text]
    config = restore_member(Path(args[0]), flags)
    members = ", ".join(sorted(config.initial_cluster))
    click.echo(f"Restored {args[0]} to {config.data_dir}: member {config.name} of {members}")
