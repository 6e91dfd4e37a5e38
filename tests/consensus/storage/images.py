"""Every disk that a crash may leave behind: a directory in memory that remembers each operation.

After a run, ``crash_images`` goes through all moments between two operations. At each it yields
what may be found afterwards: nothing of what was not synced, all of it, every prefix of the last
write, and random subsets of sectors and of names. This is independent of the simulator's disk.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import attrs

from consensus.storage.files import File, FileSystem

SECTOR_BYTES = 512


@attrs.frozen(slots=True)
class Operation:
    """One change, in order. ``data`` None is a resize to ``offset``; no name is the directory."""

    kind: str
    name: str = ""
    offset: int = 0
    data: bytes | None = None
    other: str = ""


class MemoryFiles(FileSystem):
    """A directory in memory.

    Args:
        contents: what is in it.
    """

    def __init__(self, contents: dict[str, bytes] | None = None) -> None:
        self.contents = {name: bytearray(data) for name, data in (contents or {}).items()}
        self.operations: list[Operation] = []
        self.open_files = 0

    def image(self) -> dict[str, bytes]:
        """Everything as a process sees it."""
        return {name: bytes(data) for name, data in self.contents.items()}

    def open(self, name: str) -> File:
        """Open or create."""
        if name not in self.contents:
            self.contents[name] = bytearray()
            self.operations.append(Operation("create", name))
        self.open_files += 1
        return MemoryFile(self, name)

    def names(self) -> Sequence[str]:
        """Names, sorted."""
        return sorted(self.contents)

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        self.contents[new] = self.contents.pop(old)
        self.operations.append(Operation("rename", old, other=new))

    def remove(self, name: str) -> None:
        """Remove."""
        del self.contents[name]
        self.operations.append(Operation("remove", name))

    def sync_names(self) -> None:
        """Remember that names are durable."""
        self.operations.append(Operation("sync_names"))


class MemoryFile(File):
    """An open file of ``MemoryFiles``."""

    def __init__(self, files: MemoryFiles, name: str) -> None:
        self._files = files
        self._name = name
        self._data = files.contents[name]
        self._open = True

    def read(self, offset: int, size: int) -> bytes:
        """Read."""
        return bytes(self._data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write."""
        _write(self._data, offset, data)
        self._files.operations.append(Operation("write", self._name, offset, bytes(data)))

    def sync(self) -> None:
        """Remember that this file's data is durable."""
        self._files.operations.append(Operation("sync", self._name))

    def size(self) -> int:
        """Length."""
        return len(self._data)

    def resize(self, size: int) -> None:
        """Grow or cut."""
        _resize(self._data, size)
        self._files.operations.append(Operation("write", self._name, size, None))

    def close(self) -> None:
        """Close, once."""
        if self._open:
            self._open = False
            self._files.open_files -= 1


class _Disk:
    """What is durable for sure, and what came since."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.durable_names: dict[str, bytearray] = {}
        self.durable: dict[int, bytearray] = {}
        self.pending: dict[int, list[tuple[int, bytes | None]]] = {}
        self.name_changes: list[Operation] = []

    def do(self, operation: Operation) -> None:
        match operation.kind:
            case "create":
                self.files[operation.name] = bytearray()
                self.name_changes.append(operation)
            case "write":
                file = self.files[operation.name]
                self.pending.setdefault(id(file), []).append((operation.offset, operation.data))
            case "sync":
                file = self.files[operation.name]
                for offset, data in self.pending.pop(id(file), []):
                    _apply(file, offset, data)
            case "rename":
                self.files[operation.other] = self.files.pop(operation.name)
                self.name_changes.append(operation)
            case "remove":
                del self.files[operation.name]
                self.name_changes.append(operation)
            case "sync_names":
                self.durable_names = dict(self.files)
                self.name_changes = []

    def names(self, kept: int) -> dict[str, bytearray]:
        """The names once the first ``kept`` changes since the last sync of names arrived."""
        names = dict(self.durable_names)
        everything = {**self.durable_names, **self.files}
        for change in self.name_changes[:kept]:
            match change.kind:
                case "create":
                    if change.name in everything:
                        names[change.name] = everything[change.name]
                case "rename":
                    moved = names.pop(change.name, everything.get(change.other))
                    if moved is not None:
                        names[change.other] = moved
                case "remove":
                    names.pop(change.name, None)
        return names

    def image(
        self, kept_names: int, keep: dict[int, list[tuple[int, bytes | None]]]
    ) -> dict[str, bytes]:
        image = {}
        for name, file in self.names(kept_names).items():
            data = bytearray(file)
            for offset, written in keep.get(id(file), []):
                _apply(data, offset, written)
            image[name] = bytes(data)
        return image


def crash_images(
    operations: Sequence[Operation], prng: random.Random, subsets: int = 3
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Yield (how many operations were done, what is on disk after a crash then)."""
    disk = _Disk()
    for done in range(len(operations) + 1):
        if done:
            disk.do(operations[done - 1])
        changes = len(disk.name_changes)
        nothing: dict[int, list[tuple[int, bytes | None]]] = {}
        for kept in {0, changes, prng.randrange(changes + 1)}:
            yield done, disk.image(kept, nothing)
            yield done, disk.image(kept, disk.pending)
        for _ in range(subsets):
            kept = prng.randrange(changes + 1)
            yield (
                done,
                disk.image(
                    kept, {key: _some_sectors(writes, prng) for key, writes in disk.pending.items()}
                ),
            )
        if done and operations[done - 1].kind == "write":
            yield from ((done, image) for image in _prefixes(disk, operations[done - 1], prng))


def _prefixes(disk: _Disk, last: Operation, prng: random.Random) -> Iterator[dict[str, bytes]]:
    """The last write arrived up to some byte, every earlier one whole."""
    key = id(disk.files[last.name])
    earlier = disk.pending[key][:-1]
    if last.data is None:
        return
    lengths = range(len(last.data)) if len(last.data) < 200 else range(0, len(last.data), 13)
    for length in lengths:
        torn: tuple[int, bytes | None] = (last.offset, last.data[:length])
        yield disk.image(len(disk.name_changes), {**disk.pending, key: [*earlier, torn]})


def _some_sectors(
    writes: Sequence[tuple[int, bytes | None]], prng: random.Random
) -> list[tuple[int, bytes | None]]:
    kept: list[tuple[int, bytes | None]] = []
    for offset, data in writes:
        if data is None:
            if prng.random() < 0.5:
                kept.append((offset, None))
            continue
        start = 0
        while start < len(data):
            length = SECTOR_BYTES - (offset + start) % SECTOR_BYTES
            if prng.random() < 0.5:
                kept.append((offset + start, data[start : start + length]))
            start += length
    return kept


def _apply(data: bytearray, offset: int, written: bytes | None) -> None:
    if written is None:
        _resize(data, offset)
    else:
        _write(data, offset, written)


def _write(data: bytearray, offset: int, written: bytes) -> None:
    if len(data) < offset + len(written):
        _resize(data, offset + len(written))
    data[offset : offset + len(written)] = written


def _resize(data: bytearray, size: int) -> None:
    if len(data) < size:
        data.extend(bytes(size - len(data)))
    else:
        del data[size:]
