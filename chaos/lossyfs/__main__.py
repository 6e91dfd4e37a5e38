"""``python -m chaos.lossyfs STORE MOUNTPOINT --seed N``: serve one lossy file system."""

from __future__ import annotations

from pathlib import Path

import click

from chaos.lossyfs.mount import serve


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("mountpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Of what a crash leaves.")
def main(store: Path, mountpoint: Path, seed: int) -> None:
    """Mount a file system over STORE that forgets what was not synced; until SIGTERM."""
    serve(store, mountpoint, seed)


if __name__ == "__main__":
    main()
