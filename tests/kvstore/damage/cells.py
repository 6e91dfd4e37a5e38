"""The table of damage: what is damaged, how, and when; and how each of them is done.

Each cell leaves the victim damaged and running, or about to be started again by its keeper. What
cannot be as it says is done as closely as it can be, and says so in ``REMARKS``.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from consensus.storage.files import RealFile
from consensus.storage.segments import BLOCK_BYTES, synced_offset
from kvstore.machine import DATABASE_NAME
from tests.kvstore.damage.pages import Place, places_in
from tests.kvstore.damage.world import PATIENCE_S, SNAPSHOT_COUNT, World
from tests.kvstore.ledger import more_acknowledged
from tests.waiting import wait_until

BEHIND: Final = 3 * SNAPSHOT_COUNT + 100
"""Puts after which a member that was away is brought up to date by a snapshot."""

DRAWS_MAX: Final = 40
AIMED: Final = ("value", "name", "branch", "places")
RECEIVING_MS: Final = 4000


@attrs.frozen(slots=True)
class Cell:
    """One cell of the table."""

    target: str
    kind: str
    when: str

    def __str__(self) -> str:
        return f"{self.target}, {self.kind}, {self.when}"


TARGETS: Final = ("log", "snapshot", "database")
KINDS: Final = ("bit flip", "EIO")
TIMES: Final = ("while down", "while it runs", "on the leader")
CELLS: Final = tuple(Cell(*each) for each in itertools.product(TARGETS, KINDS, TIMES))

REMARKS: Final[Mapping[Cell, str]] = {
    Cell("log", "bit flip", "while it runs"): "nothing is read from the log of a member that runs: "
    "it is killed 20 puts later, and the time is from its next start on",
    Cell("log", "bit flip", "on the leader"): "as while it runs",
    Cell("log", "EIO", "while down"): "a bad block",
    Cell("log", "EIO", "while it runs"): "a sync fails, once",
    Cell("log", "EIO", "on the leader"): "a sync fails, once",
    Cell("snapshot", "bit flip", "while down"): "in a received snapshot that the crash left to be "
    "restored",
    Cell("snapshot", "bit flip", "while it runs"): "in a snapshot that is being received",
    Cell("snapshot", "bit flip", "on the leader"): "in what a leader is to send, which is its "
    "database: a snapshot file is never sent",
    Cell("snapshot", "EIO", "while down"): "a bad block in such a snapshot",
    Cell("snapshot", "EIO", "while it runs"): "a sync of a snapshot that is being received fails",
    Cell("snapshot", "EIO", "on the leader"): "a bad block in what a leader is to send, its "
    "database, met when it starts: later its pages are in memory",
    Cell("database", "EIO", "while down"): "a bad block",
    Cell("database", "EIO", "while it runs"): "a sync fails, once: its pages are in memory",
    Cell("database", "EIO", "on the leader"): "a sync fails, once: its pages are in memory",
}


async def strike(cell: Cell, world: World) -> str:
    """Do the damage of a cell; return what was done, for a person."""
    await world.lead(cell.when == "on the leader")
    return await _DEEDS[cell.target, cell.kind](world, cell.when)


# -- the log ----------------------------------------------------------------------------------


async def _flip_log(world: World, when: str) -> str:
    if when == "while down":
        world.kill()
    (*_, segment) = world.files("engine/wal", "*.wal")
    end = await asyncio.to_thread(_synced_end, segment)
    said = flip_bit(world, segment, world.rng.randrange(BLOCK_BYTES, end))
    if when != "while down":
        await more_acknowledged(world.ledger, 20)
        world.kill()
    world.mark()
    world.launch()
    return said


def _synced_end(segment: Path) -> int:
    """How far a segment is known to be synced: damage behind that cannot be told from a torn write,
    and nothing there was acknowledged yet."""
    file = RealFile(segment)
    try:
        end = synced_offset(file, int(segment.stem))
        assert end is not None and end > BLOCK_BYTES, segment
        return end
    finally:
        file.close()


async def _fail_log(world: World, when: str) -> str:
    if when == "while down":
        world.kill()
        (*_, segment) = world.files("engine/wal", "*.wal")
        end = await asyncio.to_thread(_synced_end, segment)
        return _spoil(world, segment, world.rng.randrange(BLOCK_BYTES, end))
    world.mark()
    world.disk.command(errors_in=".wal", sync_errors=1)
    return "a sync of the log fails"


# -- snapshots --------------------------------------------------------------------------------


async def _flip_snapshot(world: World, when: str) -> str:
    if when == "on the leader":
        return await _send_damage(world)
    if when == "while it runs":
        file = await _receiving(world)
        world.mark()
        return flip_bit(world, file, world.rng.randrange(file.stat().st_size))
    file = await _received(world)
    said = flip_bit(world, file, world.rng.randrange(file.stat().st_size))
    world.mark()
    world.launch()
    return said


async def _fail_snapshot(world: World, when: str) -> str:
    if when == "on the leader":
        return await _fail_database(world, "while down")
    if when == "while it runs":
        world.kill()
        await more_acknowledged(world.ledger, BEHIND)
        world.mark()
        world.disk.command(errors_in=".snap", sync_errors=1)
        world.launch()
        return "a sync of a snapshot that is being received fails"
    file = await _received(world)
    return _spoil(world, file, world.rng.randrange(file.stat().st_size))


async def _received(world: World) -> Path:
    """Let the victim die when the log has made way for a snapshot that is not restored yet."""
    world.kill()
    await more_acknowledged(world.ledger, BEHIND)
    world.launch("wal.after_replace=crash")
    await world.ended()
    (*_, file) = world.files("engine/snap", "*.snap")
    return file


async def _receiving(world: World) -> Path:
    """Let the victim pause when a snapshot is all there and has not got its name yet."""
    world.kill()
    await more_acknowledged(world.ledger, BEHIND)
    world.launch(f"snapshot.before_rename=delay:{RECEIVING_MS}")
    await wait_until(
        lambda: bool(_finished(world)), PATIENCE_S, "a snapshot is received, but for its name"
    )
    return _finished(world)[0]


def _finished(world: World) -> list[Path]:
    """Snapshots without a name that end with their digest: those that do not grow any more."""
    return [
        file
        for file in world.files("engine/snap", "*.tmp")
        if file.stat().st_size and _ends_with_digest(file)
    ]


def _ends_with_digest(file: Path) -> bool:
    data = file.read_bytes()
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


async def _send_damage(world: World) -> str:
    """Damage what the leader is about to send to a member that was away."""
    away = world.cluster.members[2]
    world.cluster.kill(away)
    await more_acknowledged(world.ledger, BEHIND)
    said = await _flip_page(world, ("value",))
    world.cluster.launch(away)
    return f"{said}, while a member needs a snapshot of it"


# -- the database -----------------------------------------------------------------------------


async def _flip_database(world: World, when: str) -> str:
    return await _flip_page(world, AIMED, stopped=when == "while down")


async def _fail_database(world: World, when: str) -> str:
    database = world.mounted / "db" / DATABASE_NAME
    if when == "while down":
        world.ledger.go.clear()
        world.kill()
        place = _draw(world, ("value",))
        return _spoil(world, database, place.offset)
    world.mark()
    world.disk.command(errors_in=DATABASE_NAME, sync_errors=1)
    return "a sync of the database fails"


async def _flip_page(world: World, kinds: tuple[str, ...], *, stopped: bool = False) -> str:
    """Flip a bit that matters: in a copy it was seen to have an effect.

    Args:
        kinds: of places.
        stopped: whether the victim is to be stopped meanwhile. Then the load rests: a snapshot for
            a member that was away would take the damaged file away, unread.
    """
    database = world.mounted / "db" / DATABASE_NAME
    for _ in range(DRAWS_MAX):
        place = await asyncio.to_thread(_draw, world, kinds)
        offset, bit = place.offset + world.rng.randrange(place.length), world.rng.randrange(8)
        if not await asyncio.to_thread(_matters, database, offset, bit):
            continue
        if stopped:
            world.ledger.go.clear()
            world.kill()
        there = _is_there(database, place)
        world.mark()
        if there:
            said = flip_bit(world, database, offset, bit)
        if stopped:
            world.launch()
        if there:
            return f"{place.kind} of table {place.table}: {said}"
    raise AssertionError("no bit was found that matters")


def _is_there(database: Path, place: Place) -> bool:
    try:
        return place in places_in(database)
    except (ValueError, struct.error):
        return False


def _draw(world: World, kinds: tuple[str, ...]) -> Place:
    """Draw a place of the keys and values; one that is read while it is written, again."""
    for _ in range(DRAWS_MAX):
        try:
            places = places_in(world.mounted / "db" / DATABASE_NAME)
        except (ValueError, struct.error):
            continue
        wanted = [
            place
            for place in places
            if place.kind in kinds and place.table in ("index", "revisions") and place.length
        ]
        kind = world.rng.choice(sorted({place.kind for place in wanted}))
        return world.rng.choice([place for place in wanted if place.kind == kind])
    raise AssertionError("the database cannot be read while it is written")


def _matters(database: Path, offset: int, bit: int) -> bool:
    """Whether the scrub of a copy finds this bit; a copy that is torn by a write is none."""
    with tempfile.TemporaryDirectory(prefix="matters-") as name:
        copy = Path(name) / DATABASE_NAME
        shutil.copyfile(database, copy)
        if scrub_in_a_process(Path(name)):
            return False
        with copy.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes((byte ^ 1 << bit,)))
        return scrub_in_a_process(Path(name))


_SCRUB: Final = """
import sys
from pathlib import Path
from kvstore.machine import KVStateMachine
for _ in KVStateMachine(Path(sys.argv[1])).scrub_steps():
    pass
"""


def scrub_in_a_process(directory: Path) -> bool:
    """Whether opening and scrubbing a store fails, in whatever way."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRUB, str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode != 0


# -- doing it ---------------------------------------------------------------------------------


def flip_bit(world: World, file: Path, offset: int, bit: int | None = None) -> str:
    """Flip one bit of a file through its mount, so that whoever has it in memory sees it."""
    bit = world.rng.randrange(8) if bit is None else bit
    with file.open("r+b", buffering=0) as handle:
        handle.seek(offset)
        byte = handle.read(1)[0]
        handle.seek(offset)
        handle.write(bytes((byte ^ 1 << bit,)))
    return f"bit {bit} at {offset} of {file.name}"


def _spoil(world: World, file: Path, offset: int) -> str:
    """Make a block of a file of the stopped victim unreadable for good, and start the victim."""
    path = "/" + str(file.relative_to(world.victim.data))
    world.mark()
    world.disk.command(unreadable=[[path, offset]])
    world.launch()
    return f"the block at {offset // 4096 * 4096} of {file.name} cannot be read"


_DEEDS: Final[Mapping[tuple[str, str], Callable[[World, str], Awaitable[str]]]] = {
    ("log", "bit flip"): _flip_log,
    ("log", "EIO"): _fail_log,
    ("snapshot", "bit flip"): _flip_snapshot,
    ("snapshot", "EIO"): _fail_snapshot,
    ("database", "bit flip"): _flip_database,
    ("database", "EIO"): _fail_database,
}
