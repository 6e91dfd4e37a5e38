"""The write-ahead log after every crash: what was synced is there, what was not is gone or whole.

A run of appends, overwrites, rolls, releases and restarts is recorded operation by operation. For
each disk that a crash may leave (see ``images``) the log is opened, and must hold what the last
finished call left, or that with the first records of the call that was under way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs
import pytest

from chaos.sim.disk import CrashMode, SimDisk
from consensus.errors import StorageError
from consensus.raft.messages import EntryKind, LogEntry
from consensus.raft.ready import HardState
from consensus.storage.files import FileSystem
from consensus.storage.records import Base, Record, encode
from consensus.storage.recovery import Recovered
from consensus.storage.wal import WriteAheadLog
from tests.consensus.storage.images import MemoryFiles, crash_images

SEGMENT_BYTES = 5_000
"""Room for about 900 bytes of records, so that segments roll often."""


@attrs.frozen(slots=True)
class Model:
    """What a log should hold, kept in the plainest way."""

    base: tuple[int, int] = (0, 0)
    hard_state: HardState = attrs.field(factory=HardState)
    entries: tuple[LogEntry, ...] = ()

    def then(self, record: Record) -> Model:
        match record:
            case HardState():
                return attrs.evolve(self, hard_state=record)
            case Base():
                later = tuple(entry for entry in self.entries if entry.index > record.index)
                return attrs.evolve(self, base=(record.index, record.term), entries=later)
            case LogEntry():
                kept = tuple(entry for entry in self.entries if entry.index < record.index)
                return attrs.evolve(self, entries=(*kept, record))

    @classmethod
    def of(cls, recovered: Recovered) -> Model:
        return cls(
            (recovered.base.index, recovered.base.term),
            recovered.hard_state,
            tuple(recovered.entries),
        )


class Run:
    """Drives a log at random, and knows for each moment what may be found after a crash then."""

    def __init__(self, files: FileSystem, seed: int) -> None:
        self.files = files
        self.prng = random.Random(seed)
        self.model = Model()
        self.log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
        self.log.open()
        self.term = 1

    def step(self) -> list[Model]:
        """Make one call; return every state that may be found while it is under way."""
        prng = self.prng
        before = self.model
        what = prng.choices(("append", "compact", "start over"), (12, 2, 1))[0]
        records: list[Record]
        if what == "append":
            records = self._batch()
            possible = self._states(before, records)
            self.log.append(records)
        elif what == "compact":
            if not before.entries:
                return [before]
            covered = prng.choice(before.entries)
            records = [Base(covered.index, covered.term)]
            records.append(before.hard_state)
            possible = self._states(before, records)
            self.log.append(records)
            self.log.release_before(covered.index)
        else:
            last = before.entries[-1].index if before.entries else before.base[0]
            base = Base(last + prng.randrange(1, 20), self.term)
            hard_state = HardState(self.term, "b", base.index)
            self.log.start_over(base, hard_state)
            possible = [before, Model((base.index, base.term), hard_state)]
        self.model = possible[-1]
        return possible

    def _batch(self) -> list[Record]:
        prng = self.prng
        base = self.model.base[0]
        last = self.model.entries[-1].index if self.model.entries else base
        first = last + 1
        records: list[Record] = []
        if prng.random() < 0.25:
            self.term += 1
            first = prng.randrange(base + 1, last + 2)
        for index in range(first, first + prng.choice((0, 1, 1, 2, 5))):
            data = prng.randbytes(prng.choice((0, 10, 100, 700)))
            records.append(LogEntry(index, self.term, EntryKind.COMMAND, data))
        if prng.random() < 0.4 or not records:
            records.append(HardState(self.term, prng.choice(("a", None)), prng.randrange(9)))
        return records

    @staticmethod
    def _states(state: Model, records: Sequence[Record]) -> list[Model]:
        states = [state]
        for record in records:
            states.append(states[-1].then(record))
        return states


@pytest.mark.parametrize("seed", range(4))
def test_every_crash_leaves_what_was_synced_and_whole_records_of_what_was_not(seed: int) -> None:
    files = MemoryFiles()
    run = Run(files, seed)
    marks = [(0, [Model()]), (len(files.operations), [Model()])]
    for _ in range(14):
        possible = run.step()
        marks.append((len(files.operations), possible))
    images = 0
    for done, image in crash_images(files.operations, random.Random(seed)):
        number = next(n for n, (end, _) in enumerate(marks) if done <= end)
        allowed = list(marks[number][1])
        if done == marks[number][0]:
            allowed = allowed[-1:]  # the call is over: nothing but its end will do
        after = MemoryFiles(image)
        log = WriteAheadLog(after, segment_bytes=SEGMENT_BYTES)
        found = Model.of(log.open())
        assert found in allowed, f"after operation {done} of {len(files.operations)}"
        images += 1
        if images % 7 == 0:
            _go_on(log, after, found)
    assert images > 500


def _go_on(log: WriteAheadLog, files: MemoryFiles, found: Model) -> None:
    """A log that was recovered takes appends, and nothing of the torn tail comes back."""
    last = found.entries[-1].index if found.entries else found.base[0]
    more: list[Record] = [LogEntry(last + 1, 999, EntryKind.COMMAND, b"after")]
    more.append(HardState(999, "z", 0))
    log.append(more)
    log.close()
    assert files.open_files == 0
    again = WriteAheadLog(MemoryFiles(files.image()), segment_bytes=SEGMENT_BYTES).open()
    assert Model.of(again) == found.then(more[0]).then(more[1])


@pytest.mark.parametrize("mode", list(CrashMode))
def test_crashes_one_after_the_other_on_the_simulated_disk(mode: CrashMode) -> None:
    for seed in range(15):
        prng = random.Random(seed)
        disk = SimDisk(random.Random(seed), lambda: None)
        files = disk.directory()
        run = Run(files, seed)
        for _ in range(12):
            for _ in range(prng.randrange(6)):
                run.step()
            disk.fail_next_sync = True
            before = run.model
            records = run._batch()
            with pytest.raises(StorageError, match="failed a sync"):
                run.log.append(records)
            disk.crash(mode)
            run.log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
            run.model = Model.of(run.log.open())
            assert run.model in run._states(before, records)


# -- one bit --------------------------------------------------------------------------------------


def written_log(batches: int, *, roll: bool) -> tuple[MemoryFiles, Model]:
    files = MemoryFiles()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    model = Model()
    for number in range(1, batches + 1):
        data = bytes([number]) * (200 if roll else 20)
        records: list[Record] = [
            LogEntry(number, number, EntryKind.COMMAND, data),
            HardState(number, "a", number - 1),
        ]
        log.append(records)
        for record in records:
            model = model.then(record)
    log.close()
    return files, model


def flipped(image: dict[str, bytes], name: str, position: int, bit: int) -> dict[str, bytes]:
    data = bytearray(image[name])
    data[position] ^= 1 << bit
    return {**image, name: bytes(data)}


@pytest.mark.parametrize("roll", [False, True], ids=["one segment", "three segments"])
def test_no_flipped_bit_of_what_was_synced_is_accepted_or_cut(roll: bool) -> None:
    """After a crash of the process the slots are right, and so every single bit counts."""
    files, model = written_log(9, roll=roll)
    image = files.image()
    assert len(image) == (3 if roll else 1)
    prng = random.Random(0)
    detected = harmless = 0
    for name, data in image.items():
        last = max(position for position, byte in enumerate(data) if byte) + 1
        for position in range(0, last, 3 if roll else 1):
            bit = prng.randrange(8)
            after = MemoryFiles(flipped(image, name, position, bit))
            try:
                found = Model.of(WriteAheadLog(after, segment_bytes=SEGMENT_BYTES).open())
            except StorageError as error:
                assert name in str(error) or "version" in str(error) or "group" in str(error)
                detected += 1
            else:
                assert found == model, f"bit {bit} of byte {position} of {name} went unseen"
                harmless += 1
        assert detected
    assert harmless, "the unused rest of the first block, and slots, of which one is enough"
    records = sum(len(data.rstrip(b"\0")) - 4096 for data in image.values())
    assert detected >= records // (3 if roll else 1), "every byte of every record is watched"


def test_damage_behind_the_synced_offset_is_not_cut_even_after_a_loss_of_power() -> None:
    """The newest slot is lost with the power; all but the very last batch is told apart yet."""
    files = MemoryFiles()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    starts = []
    for number in range(1, 6):
        starts.append(len(files.contents["00000000000000000001.wal"].rstrip(b"\0")))
        log.append([LogEntry(number, 1, EntryKind.COMMAND, b"some data")])
    last_sync = max(n for n, o in enumerate(files.operations) if o.kind == "sync")
    durable = next(
        image
        for done, image in crash_images(files.operations, random.Random(0), subsets=0)
        if done == last_sync + 1
    )
    name = "00000000000000000001.wal"
    for position in range(4096, starts[-1]):
        with pytest.raises(StorageError, match=f"segment {name} is damaged at offset"):
            WriteAheadLog(MemoryFiles(flipped(durable, name, position, 3))).open()


def test_remains_of_a_torn_write_never_come_back() -> None:
    """The first sector of a batch was lost, a later one with a whole old record was not."""
    files = MemoryFiles()
    log = WriteAheadLog(files, segment_bytes=SEGMENT_BYTES)
    log.open()
    first = LogEntry(1, 1, EntryKind.COMMAND, b"x" * 100)
    stale = LogEntry(2, 1, EntryKind.COMMAND, b"stale")
    log.append([first, stale, HardState(1, "a", 2)])
    name = "00000000000000000001.wal"
    data = bytearray(files.contents[name])
    begin = 4096 + len(encode(Base(0, 0)) + encode(HardState()))
    length = len(encode(first))
    data[begin : begin + length] = bytes(length)
    for slot in (512, 1024):
        data[slot : slot + 20] = bytes(20)
    damaged = MemoryFiles({name: bytes(data)})
    log = WriteAheadLog(damaged, segment_bytes=SEGMENT_BYTES)
    recovered = log.open()
    assert recovered.entries == []
    assert recovered.torn_bytes > 0
    new = LogEntry(1, 7, EntryKind.COMMAND, b"y" * 100)
    log.append([new])
    again = WriteAheadLog(MemoryFiles(damaged.image()), segment_bytes=SEGMENT_BYTES).open()
    assert again.entries == [new]
    assert again.hard_state == HardState()
