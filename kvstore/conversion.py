"""``kvstore convert``: a stopped member's log from one engine to another, in its data directory.

Stop all members, convert each, start them all: the cluster goes on as it was. The new log is built
aside, read back, and takes the old one's place; the old one is kept beside it. A crash in between
leaves a directory that no server starts on, and that the same command finishes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from consensus.errors import ConfigError, StorageError
from kvstore.config import ServerConfig
from kvstore.datadir import DataDirectory, engine_in
from kvstore.engines import CONVERSIONS, convert_log
from kvstore.identity import identify


def convert(config: ServerConfig) -> str:
    """Convert the log in the data directory to ``config.engine``; return what was done.

    Raises:
        ConfigError: there is nothing that this can convert.
        StorageError: the directory is in use or somebody else's, or cannot be read or written.
    """
    path, wanted = config.data_dir, config.engine
    if not (path / "member").is_dir():
        raise ConfigError(f"--data-dir: {path} holds no member's data")
    identity = identify(config.initial_cluster, config.name, config.cluster_token)
    directory = DataDirectory(path, identity, engine=None)
    try:
        found = engine_in(directory.engine)
        ready = directory.engine.with_name(f"engine.{wanted}")
        if not directory.engine.exists() and ready.exists():
            ready.rename(directory.engine)
            return f"{path}: finished the conversion to {wanted} that was interrupted"
        if found == wanted:
            return f"{path} is the {wanted} engine's already; nothing was done"
        if (found, wanted) not in CONVERSIONS:
            raise ConfigError(how_to_move(path, found, wanted))
        kept = _free_name(directory.engine, found)
        building = directory.engine.with_name(f"engine.{wanted}.part")
        for left in (building, ready):
            shutil.rmtree(left, ignore_errors=True)
        building.mkdir()
        index, term = convert_log(found, directory.engine, building, config, identity)
        building.rename(ready)
        directory.sync()
        directory.engine.rename(kept)
        ready.rename(directory.engine)
        directory.sync()
    except OSError as error:
        raise StorageError(f"cannot convert {path}: {error}") from None
    finally:
        directory.close()
    return (
        f"{path}: converted from {found} to {wanted}; the log ends at index {index} of term "
        f"{term}. The old log is kept in {kept}; remove it when the cluster runs"
    )


def how_to_move(path: Path, found: str, wanted: str) -> str:
    """Return what to do with a directory of engine ``found`` for a member on ``wanted``."""
    if (found, wanted) in CONVERSIONS:
        return (
            f"stop all members, run `kvstore convert --to {wanted}` with each one's own flags "
            f"(--data-dir {path}, --name, --initial-cluster, ...), and start them again"
        )
    return (
        f"there is no conversion from {found} to {wanted}: start the members with --engine "
        f"{found}, `kvctl snapshot save FILE`, and make new data directories with `kvctl snapshot "
        f"restore FILE --engine {wanted}`"
    )


def _free_name(engine: Path, found: str) -> Path:
    """Return a name that nothing has yet, for the old log."""
    names: Sequence[str] = [f"engine.{found}", *(f"engine.{found}.{n}" for n in range(1, 1000))]
    for name in names:
        candidate = engine.with_name(name)
        if not candidate.exists():
            return candidate
    raise StorageError(f"{engine.parent} holds too many old logs; remove some")
