"""Faults of disks: lossy ones through FUSE, and damage to files of a stopped member.

At the end every member that a fault has stopped, by itself or by the fault, is started again: a
member that halts at an I/O error does what it should. Damage is undone at the end only if the
member could not serve with it, and so has not gone on from it; a copy of what it was is kept aside.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from chaos.lossyfs.volatile import Forget
from chaos.nemesis.injectors.base import Injector

SERVE_TIMEOUT_S: Final = 5.0
"""A member that ran through a fault of its disk and does not serve so long after is restarted."""

BLOCK_BYTES: Final = 4096
POLL_S: Final = 0.1


class DiskInjector(Injector):
    """What faults of disks share."""

    async def command(self, **settings: Any) -> None:
        """Switch a fault of the targets' disks."""
        for victim in self.victims:
            await asyncio.to_thread(self.cluster.disks[victim].command, **settings)

    async def counts(self) -> dict[str, dict[str, int]]:
        """The counters of the targets' disks."""
        return {
            victim: await asyncio.to_thread(self.cluster.disks[victim].counts)
            for victim in self.victims
        }

    async def revive(self) -> None:
        """Start those of the targets that ended; restart those that do not serve."""
        await self.cluster.restart(self.victims, self)
        for victim in self.victims:
            if not await self.serves_soon(victim):
                await self.cluster.kill([victim], self)
                await self.cluster.restart([victim], self)

    async def serves_soon(self, member: str) -> bool:
        """Whether a member serves, or comes to within ``SERVE_TIMEOUT_S``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SERVE_TIMEOUT_S
        while not await self.cluster.serves(member):
            if loop.time() > deadline or not self.cluster.processes[member].running:
                return False
            await asyncio.sleep(POLL_S)
        return True


class PowerLoss(DiskInjector):
    """disk.power_loss: all targets die, then each disk forgets."""

    async def strike(self) -> None:
        """See ``Injector``."""
        await self.cluster.kill(self.victims, self)
        leaves = Forget(self.option("leaves", str))
        self._lost = {
            victim: await asyncio.to_thread(self.cluster.disks[victim].forget, leaves)
            for victim in self.victims
        }

    async def evidence(self) -> str:
        """Dead, and it says how many changes were lost: none is possible, and no failure."""
        victim = self.victims[0]
        if await self.cluster.serves(victim):
            return ""
        lost = ", ".join(f"{member} {count}" for member, count in self._lost.items())
        return f"{victim} did not serve a linearizable read; unsynced changes lost: {lost}"

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.cluster.restart(self.victims, self)


class Switch(DiskInjector):
    """Faults that are one switch of the disk, and a counter that shows them."""

    COUNTERS: ClassVar[Mapping[str, str]] = {
        "disk.sync_error": "sync errors",
        "disk.read_error": "read errors",
        "disk.full": "refused for space",
        "disk.stall": "stalled syncs",
        "disk.slow": "slow syncs",
    }

    async def strike(self) -> None:
        """See ``Injector``. Reads come when a member starts."""
        self._before = await self.counts()
        reads = self.fault.kind == "disk.read_error"
        if reads:
            await self.cluster.kill(self.victims, self)
        await self.command(**self._settings())
        if reads:
            await self.cluster.restart(self.victims, self)

    async def evidence(self) -> str:
        """See ``Injector``."""
        counter = self.COUNTERS[self.fault.kind]
        for victim, counts in (await self.counts()).items():
            times = counts.get(counter, 0) - self._before[victim].get(counter, 0)
            if times > 0:
                return f"the disk of {victim}: {times} {counter}"
        return ""

    async def mend(self) -> None:
        """See ``Injector``."""
        await asyncio.gather(
            *(asyncio.to_thread(self.cluster.disks[victim].heal) for victim in self.victims)
        )
        await self.revive()

    def _settings(self) -> dict[str, Any]:
        match self.fault.kind:
            case "disk.sync_error":
                return {"sync_errors": self.option("count", int)}
            case "disk.read_error":
                return {"read_errors": self.option("count", int)}
            case "disk.full":
                return {"full": True}
            case "disk.stall":
                return {"stalled": True}
            case _:
                return {"sync_delay_ms": self.option("delay_ms", int)}


class Damage(DiskInjector):
    """disk.bit_flip and disk.truncate: a file changes while its member is stopped."""

    async def strike(self) -> None:
        """See ``Injector``."""
        victim = self.victims[0]
        await self.cluster.kill([victim], self)
        self._said = await asyncio.to_thread(self._damage, victim)
        await self.cluster.restart([victim], self)

    async def evidence(self) -> str:
        """The damage is there; and what the member made of it, when it has made up its mind."""
        victim = self.victims[0]
        process = self.cluster.processes[victim]
        if not self._said:
            return ""
        if not process.running:
            lines = [line for line in process.log_tail().splitlines() if '"info"' not in line]
            last = "".join(lines[-1:])
            return f"{self._said}; it ended with exit code {process.exit_code}: {last}"
        return f"{self._said}; it serves" if await self.cluster.serves(victim) else ""

    async def mend(self) -> None:
        """See ``Injector``."""
        victim = self.victims[0]
        if await self.serves_soon(victim) or not self._said:
            return
        await self.cluster.kill([victim], self)
        await asyncio.to_thread(shutil.copy2, self._copy, self._file)
        await self.cluster.restart([victim], self)

    def _damage(self, victim: str) -> str:
        directory = self.cluster.data_directory(victim)
        files = written_files(directory, self.option("files", str))
        if not files:
            return ""
        self._file = self.rng.choice(files)
        self._copy = self.cluster.directory / f"undamaged-{victim}"
        shutil.copy2(self._file, self._copy)
        data = bytearray(self._file.read_bytes())
        place = f"{victim}'s {self._file.relative_to(directory)}"
        end = len(data.rstrip(b"\0"))
        if self.fault.kind == "disk.truncate":
            kept = max(0, end - self.option("bytes", int))
            with self._file.open("r+b") as file:
                file.truncate(kept)
            return f"{place} was cut from {len(data)} to {kept} bytes"
        places = self._flip(data, end)
        with self._file.open("r+b") as file:
            for offset in places:
                file.seek(offset)
                file.write(data[offset : offset + 1])
        return f"{len(places)} bits of {place} were flipped, the first at byte {places[0]}"

    def _flip(self, data: bytearray, end: int) -> list[int]:
        """Flip bits in blocks that hold something; return where."""
        blocks = [at for at in range(0, end, BLOCK_BYTES) if any(data[at : at + BLOCK_BYTES])]
        places = []
        for _ in range(self.option("bits", int)):
            block = self.rng.choice(blocks)
            offset = self.rng.randrange(block, min(block + BLOCK_BYTES, end))
            data[offset] ^= 1 << self.rng.randrange(8)
            places.append(offset)
        return places


def written_files(directory: Path, which: str) -> list[Path]:
    """Files of a member that hold something: of its log, of its database, or any; sorted.

    The log's files are below a directory called wal (native, etcd) or have the suffix .journal;
    what is left, but for locks, is the database's.
    """
    found = []
    for path in sorted(directory.rglob("*")):
        if not path.is_file() or "lock" in path.name or path.stat().st_size == 0:
            continue
        is_log = path.parent.name == "wal" or path.suffix == ".journal"
        if which == "any" or is_log == (which == "log"):
            found.append(path)
    return [path for path in found if path.read_bytes().strip(b"\0")]


class Wipe(DiskInjector):
    """disk.wipe: the data are away while the member is down."""

    async def strike(self) -> None:
        """See ``Injector``."""
        victim = self.victims[0]
        await self.cluster.kill([victim], self)
        self._aside = self.cluster.directory / f"aside-{victim}"
        self._aside.mkdir()
        await asyncio.to_thread(_move_all, self.cluster.data_directory(victim), self._aside)

    async def evidence(self) -> str:
        """See ``Injector``."""
        victim = self.victims[0]
        if await self.cluster.serves(victim):
            return ""
        return f"{victim} did not serve a linearizable read; its data are gone"

    async def mend(self) -> None:
        """See ``Injector``."""
        victim = self.victims[0]
        await asyncio.to_thread(_move_all, self._aside, self.cluster.data_directory(victim))
        self._aside.rmdir()
        await self.cluster.restart([victim], self)


def _move_all(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.move(path, target / path.name)
