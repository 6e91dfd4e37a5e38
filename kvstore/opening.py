"""Opening the store of a member that others can help.

A store that is too damaged to open makes way, and the engine has it rebuilt. One in which the last
process ended (see ``kvstore.lastlife``) is checked as a whole before anything is answered from it.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import structlog

from consensus.errors import DataDamaged
from kvstore.config import ServerConfig
from kvstore.lastlife import LastLife
from kvstore.machine import DATABASE_NAME, KVStateMachine
from kvstore.mvcc.snapshot import set_aside

log = structlog.get_logger(__name__)


async def open_machine(
    config: ServerConfig, directory: Path, last: LastLife | None
) -> KVStateMachine:
    """Open the store in ``directory``.

    Args:
        last: how the last process ended, and where this one notes what it does; None: nowhere.

    Raises:
        DataDamaged: it is damaged, and nobody else has its data.
        StorageError: it cannot be used.
    """
    if last is None:
        return _open(config, directory)
    if not last.cause:
        last.serves()
        return _open(config, directory)
    log.error(
        "the last process of this member was ended by a fatal error, as it is where the disk "
        "cannot be read or the store is damaged: the store is checked before it serves",
        cause=last.cause,
        while_checking=last.was_checking,
    )
    last.checks()
    if last.was_checking:
        machine = _make_way(
            config,
            directory,
            f"{directory / DATABASE_NAME} cannot be read: checking it has ended the last process "
            f"({last.cause}).",
        )
    else:
        machine = _open(config, directory)
    try:
        for _ in machine.scrub_steps():
            await asyncio.sleep(0)
    except DataDamaged as damage:
        machine.abandon()
        machine = _make_way(config, directory, str(damage))
    except BaseException:
        machine.abandon()
        raise
    last.serves()
    return machine


def _open(config: ServerConfig, directory: Path) -> KVStateMachine:
    try:
        return _machine(config, directory)
    except DataDamaged as damage:
        return _make_way(config, directory, str(damage))


def _make_way(config: ServerConfig, directory: Path, damage: str) -> KVStateMachine:
    """Put a damaged store aside and open an empty one.

    Raises:
        DataDamaged: nobody else has its data.
    """
    if config.engine != "native" or len(config.initial_cluster) == 1:
        raise DataDamaged(
            f"{damage.rstrip('.')}. No other member can give this one its data back: look at the "
            "disk, and restore a snapshot, or point --data-dir at another directory"
        )
    log.error("the store is rebuilt from the other members", damage=damage)
    set_aside(directory / DATABASE_NAME)
    return _machine(config, directory)


def _machine(config: ServerConfig, directory: Path) -> KVStateMachine:
    return KVStateMachine(
        directory,
        quota_bytes=config.quota_bytes,
        min_lease_ttl_s=math.ceil(1.5 * config.election_timeout_ms / 1000),
    )
