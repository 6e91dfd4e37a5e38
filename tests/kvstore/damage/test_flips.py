"""A sample of flipped bits in a store at rest; ``flips`` flips as many as one likes."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.errors import StorageError
from kvstore.machine import DATABASE_NAME, KVStateMachine
from kvstore.mvcc.records import Damaged
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.kvstore.damage.flips import Content, wrong_answers
from tests.kvstore.damage.pages import KINDS, PAGE, Place, places_in


def test_no_flipped_bit_stays_unseen() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kvstore.damage.flips", "--flips", "4", "--seed", "3"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(kind in done.stdout for kind in KINDS)


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, Content]:
    machine = KVStateMachine(tmp_path)
    content = Content(200, seed=5)
    content.write(machine)
    machine.close()
    return tmp_path, content


def places(directory: Path, kind: str, table: str) -> list[Place]:
    found = places_in(directory / DATABASE_NAME)
    return [place for place in found if (place.kind, place.table) == (kind, table)]


def change(directory: Path, offset: int, data: bytes) -> None:
    with (directory / DATABASE_NAME).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_the_store_as_written_is_right(filled: tuple[Path, Content]) -> None:
    machine = KVStateMachine(filled[0])
    assert list(wrong_answers(machine, filled[1])) == []
    assert sum(1 for _ in machine.scrub_steps()) >= 0
    machine.close()


def test_a_key_that_a_lookup_misses_is_damage_and_not_absence(
    filled: tuple[Path, Content],
) -> None:
    """The separators of the index's branch lead every lookup to the first leaf."""
    directory, content = filled
    for place in places(directory, "branch", "index"):
        if place.length > 12:
            change(directory, place.offset + 8, b"\xff")
    machine = KVStateMachine(directory)
    missed = 0
    for key in content.keys:
        try:
            answer = machine.query(pb.RangeRequest(key=key))
        except Damaged:
            missed += 1
        else:
            assert [kv.key for kv in answer.kvs] == [key]
    assert missed, "no lookup was led astray"
    with pytest.raises(Damaged):
        list(machine.scrub_steps())
    machine.abandon()


@pytest.mark.parametrize("table", ["index", "revisions"])
def test_a_leaf_that_lost_its_last_rows_is_found_and_not_sent(
    filled: tuple[Path, Content], table: str
) -> None:
    directory, _ = filled
    headers = places(directory, "page header", table)
    leaves = [place for place in headers if _is_leaf(directory, place)]
    leaf = random.Random(1).choice(leaves)
    lower = leaf.offset + 12
    data = (directory / DATABASE_NAME).read_bytes()
    rows = int.from_bytes(data[lower : lower + 2], "little")
    change(directory, lower, (rows - 4).to_bytes(2, "little"))
    machine = KVStateMachine(directory)
    with pytest.raises(Damaged):
        list(machine.scrub_steps())
    frozen = machine.snapshot()
    with pytest.raises(Damaged):
        list(frozen.chunks())
    frozen.release()
    machine.abandon()


def _is_leaf(directory: Path, header: Place) -> bool:
    with (directory / DATABASE_NAME).open("rb") as file:
        file.seek(header.offset // PAGE * PAGE + 10)
        return file.read(1) == b"\2"


def test_a_name_of_another_length_is_damage(filled: tuple[Path, Content]) -> None:
    directory, _ = filled
    place = places(directory, "name", "revisions")[20]
    change(directory, place.offset + 6, b"\x0b")
    machine = KVStateMachine(directory)
    with pytest.raises(Damaged):
        list(machine.scrub_steps())
    machine.abandon()


def test_a_damaged_root_is_found_when_the_store_is_opened(filled: tuple[Path, Content]) -> None:
    directory, _ = filled
    (root,) = places(directory, "page header", "leases")
    change(directory, root.offset + 10, b"\x40")
    with pytest.raises(Damaged):
        KVStateMachine(directory)


def test_a_damaged_value_is_not_sent(filled: tuple[Path, Content]) -> None:
    directory, _ = filled
    place = places(directory, "value", "revisions")[20]
    change(directory, place.offset + place.length - 1, b"\0")
    machine = KVStateMachine(directory)
    frozen = machine.snapshot()
    with pytest.raises(Damaged, match="checksum"):
        list(frozen.chunks())
    frozen.release()
    machine.abandon()


@pytest.mark.parametrize("offset", [PAGE + 16, PAGE + 20, PAGE + 16 + 16 + 6, PAGE + 136 + 6])
def test_a_beginning_that_cannot_be_is_refused_before_it_is_mapped(
    filled: tuple[Path, Content], offset: int
) -> None:
    change(filled[0], offset, b"\x7f")
    with pytest.raises(StorageError, match="its beginning is damaged"):
        KVStateMachine(filled[0])
