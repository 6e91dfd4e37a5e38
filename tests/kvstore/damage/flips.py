"""One flipped bit anywhere in a store at rest: what is answered from it, and what the scrub says.

    PYTHONPATH=. nice python -m tests.kvstore.damage.flips --flips 2000 --seed 1

For each kind of place in the file (see ``pages``) as many bits are flipped as are asked for, one
in a copy each. Each copy is opened in a process of its own; everything is asked of it, as clients
would (keys, keys that are not there, ranges, the past, watches), and then it is scrubbed. The exit
status is 1 where wrong answers were followed by a scrub that found nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
from rich.console import Console
from rich.table import Table

from consensus.errors import DataDamaged
from consensus.types import Entry
from kvstore.config import load
from kvstore.lastlife import LastLife
from kvstore.machine import DATABASE_NAME, KVStateMachine
from kvstore.opening import open_machine
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from tests.kvstore.damage.pages import KINDS, places_in

ALIVE_S: Final = 20
"""A copy that is not through by then hangs."""

LIVES_MAX: Final = 3
BAD_SHOWN: Final = 20

HARMLESS: Final = "no effect"
REPLAYED: Final = "an older commit: the log brings the rest"
FOUND: Final = "found before a wrong answer"
SCRUBBED: Final = "found by the scrub, after a wrong answer"
STARTED: Final = "ended by a signal; the next start says why"
SILENT: Final = "WRONG ANSWERS, NOT FOUND"
FAILED: Final = "FAILED"
BAD: Final = (SILENT, FAILED)
OUTCOMES: Final = (HARMLESS, REPLAYED, FOUND, SCRUBBED, STARTED, SILENT, FAILED)


class Content:
    """A store's content, as it was written: every key twice, some on a lease, some long, one gone.

    Args:
        keys: how many.
        seed: of the order in which they are written.
    """

    def __init__(self, keys: int, seed: int) -> None:
        self.keys = [self._name(number) for number in range(keys)]
        self.writes: list[bytes] = [*self.keys, *self.keys]
        random.Random(seed).shuffle(self.writes)
        self.index = 0

    @staticmethod
    def _name(number: int) -> bytes:
        name = b"key/%05d" % number
        return name if number % 10 else name + b"/long" * 120

    def value(self, revision: int) -> bytes:
        """What the write of a revision put."""
        return b"written at %06d " % revision * (400 if revision % 50 == 0 else 3)

    def write(self, machine: KVStateMachine) -> None:
        """Write everything; the very last write has a commit of its own."""
        self._apply(machine, Command(lease_grant=pb.LeaseGrantRequest(ID=7, TTL=1000)))
        for number, key in enumerate(self.writes):
            if number == len(self.writes) - 1:
                machine.commit()
            value, lease = self.value(number + 2), 7 if number % 5 == 0 else 0
            put = pb.PutRequest(key=key, value=value, lease=lease)
            self._apply(machine, Command(put=put))

    def _apply(self, machine: KVStateMachine, command: Command) -> None:
        self.index += 1
        machine.apply(Entry(1, self.index, 0, command.SerializeToString()))

    def at(self, revision: int) -> dict[bytes, tuple[int, bytes]]:
        """Each key's revision and value, as they were at ``revision``."""
        return {
            key: (number + 2, self.value(number + 2))
            for number, key in enumerate(self.writes[: revision - 1])
        }


def wrong_answers(machine: KVStateMachine, content: Content) -> Iterator[str]:
    """Ask everything; yield what is answered wrongly.

    Raises:
        DataDamaged: the store says that it is damaged.
    """
    newest = machine.store.current_revision
    model = content.at(newest)
    for key in content.keys:
        answer = machine.query(pb.RangeRequest(key=key))
        if {kv.key: (kv.mod_revision, kv.value) for kv in answer.kvs} != {
            name: model[name] for name in (key,) if name in model
        }:
            yield f"get {key[:20]!r}"
        if machine.query(pb.RangeRequest(key=key + b"!")).kvs:
            yield f"get of a key that is not there, {key[:20]!r}"
    for revision in (newest, newest // 2):
        then = content.at(revision)
        for first in range(0, len(content.keys), 50):
            start, end = content.keys[first], (content.keys[first + 50 :] or [b"z"])[0]
            answer = machine.query(
                pb.RangeRequest(key=start, range_end=end, revision=revision, limit=1000)
            )
            expected = {key: found for key, found in then.items() if start <= key < end}
            if {kv.key: (kv.mod_revision, kv.value) for kv in answer.kvs} != expected:
                yield f"range from {start[:20]!r} at {revision}"
    events, _ = machine.store.history(2, b"\0", b"\0", 10**6, newest)
    if [revision for revision, _ in events] != list(range(2, newest + 1)):
        yield "watch from the past"
    if {lease for lease, _ in machine.leases()} != {7}:
        yield "leases"


def judge(directory: Path, content: Content) -> str:
    """Open a store as a member's start does, ask everything, scrub; return the outcome."""
    cluster = ",".join(f"{name}=http://127.0.0.1:{port}" for port, name in enumerate("abc", 1))
    config = load(
        [
            *("--name", "a", "--data-dir", str(directory), "--initial-cluster", cluster),
            *("--initial-advertise-peer-urls", "http://127.0.0.1:1"),
        ]
    )
    last = LastLife(directory / "last-life")
    died = last.cause
    machine = asyncio.run(open_machine(config, directory, last))
    if machine.position().index == 0:
        return STARTED if died else FOUND
    wrong = ""
    try:
        wrong = next(wrong_answers(machine, content), "")
        for _ in machine.scrub_steps():
            pass
    except DataDamaged:
        return SCRUBBED if wrong else FOUND
    if wrong:
        return f"{SILENT}: {wrong}"
    if machine.position().index < content.index:
        return REPLAYED
    return STARTED if died else HARMLESS


def outcome_of(directory: Path, content: Content) -> str:
    """Judge a store in a process of its own; start it again where a signal ends it."""
    for _ in range(LIVES_MAX):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(ALIVE_S)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            try:
                said = judge(directory, content)
            except BaseException as error:
                said = f"{FAILED}: {type(error).__name__}: {error}"
            os.write(write, said.encode()[:500])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(pid, 0)
        if said:
            return said
        if os.WTERMSIG(status) == signal.SIGALRM:
            return f"{FAILED}: it hangs"
    return f"{FAILED}: ended by a signal again and again"


@contextmanager
def _copy(data: bytes, inside: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=inside) as name:
        (Path(name) / DATABASE_NAME).write_bytes(data)
        yield Path(name)


@attrs.define
class Flips:
    """What became of the flips: outcomes by kind of place, and the bad ones word by word."""

    counts: dict[str, Counter[str]] = attrs.field(factory=dict)
    bad: list[str] = attrs.field(factory=list)


def flip(inside: Path, flips: int, seed: int, keys: int = 300) -> Flips:
    """Flip ``flips`` bits of each kind of place, one in a copy each."""
    content = Content(keys, seed)
    original = inside / "original"
    machine = KVStateMachine(original)
    content.write(machine)
    machine.close()
    data = (original / DATABASE_NAME).read_bytes()
    places = places_in(original / DATABASE_NAME)
    drawn = random.Random(seed)
    result = Flips()
    for kind in KINDS:
        here = [place for place in places if place.kind == kind]
        counts = result.counts[kind] = Counter()
        for _ in range(flips):
            place = drawn.choice(here)
            offset, bit = place.offset + drawn.randrange(place.length), drawn.randrange(8)
            flipped = bytearray(data)
            flipped[offset] ^= 1 << bit
            with _copy(bytes(flipped), inside) as directory:
                said = outcome_of(directory, content)
            counts[said.partition(":")[0] if said.startswith(BAD) else said] += 1
            if said.startswith(BAD):
                result.bad.append(f"{kind} of {place.table!r} at {offset}, bit {bit}: {said}")
    return result


def table_of(result: Flips) -> Table:
    """Show the outcomes."""
    table = Table(title="One flipped bit in a store at rest")
    table.add_column("place")
    for outcome in OUTCOMES:
        table.add_column(outcome, justify="right")
    for kind, counts in result.counts.items():
        table.add_row(kind, *(str(counts[outcome] or "") for outcome in OUTCOMES))
    return table


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--flips", type=int, default=200, help="of each kind of place")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flips-") as directory:
        result = flip(Path(directory), options.flips, options.seed)
    Console(width=140).print(table_of(result))
    for line in result.bad[:BAD_SHOWN]:
        print(line)
    sys.exit(1 if result.bad else 0)


if __name__ == "__main__":
    main()
