"""Files that cannot be opened, damaged values, bad snapshots: refused by name, never answered."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from consensus.errors import StorageError
from consensus.types import Position
from kvstore.machine import KVStateMachine
from kvstore.mvcc.backend import FORMAT_KEY, Backend
from kvstore.mvcc.records import Damaged
from kvstore.mvcc.scrub import scrub_steps
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.kvstore.mvcc.driver import Driver, drain


def test_a_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "state.mdb").write_bytes(b"hello, this is a text file\n" * 1000)
    with pytest.raises(StorageError, match="not a kvstore database"):
        KVStateMachine(tmp_path / "text")
    (tmp_path / "other").mkdir()
    foreign = str(tmp_path / "other" / "state.mdb")
    with lmdb.open(foreign, subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"x", b"y")
    with pytest.raises(StorageError, match="not one of kvstore"):
        KVStateMachine(tmp_path / "other")


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    KVStateMachine(tmp_path).close()
    backend = Backend(tmp_path / "state.mdb")
    backend.put_meta(FORMAT_KEY, b"raftyard-kvstore-2")
    backend.commit()
    backend.close()
    with pytest.raises(StorageError, match="raftyard-kvstore-2"):
        KVStateMachine(tmp_path)


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "state.mdb").mkdir()
    with pytest.raises(StorageError, match=r"state\.mdb"):
        KVStateMachine(tmp_path)


def test_too_little_address_space_is_said_plainly(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from consensus.errors import StorageError
from kvstore.machine import KVStateMachine
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
try:
    KVStateMachine(Path({str(tmp_path)!r}))
except StorageError as error:
    print(error)
"""
    limited = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "64 GiB of address space" in limited.stdout


def test_damaged_values_are_never_answered(tmp_path: Path) -> None:
    """One bit flipped in any stored value: the damage is named, or the answers are right."""
    pristine = tmp_path / "pristine"
    driver = Driver(pristine)
    driver.call(pb.LeaseGrantRequest(ID=5, TTL=100))
    values = {b"key-%d" % n: bytes([65 + n]) * 400 for n in range(20)}
    for key, value in values.items():
        driver.put(key, b"old-" + value, lease=5)
        driver.put(key, value)
    driver.machine.close()
    content = (pristine / "state.mdb").read_bytes()
    chance = random.Random(3)
    found = 0
    for trial in range(120):
        key = chance.choice(sorted(values))
        # 30 bytes before a value there is still its record: checksum, links, key.
        offset = chance.choice(_occurrences(content, values[key])) + chance.randrange(
            -30, len(values[key])
        )
        flipped = bytearray(content)
        flipped[offset] ^= 1 << chance.randrange(8)
        directory = tmp_path / f"flip{trial}"
        directory.mkdir()
        (directory / "state.mdb").write_bytes(flipped)
        found += _damage_is_found(directory, values)
    assert found > 100, "hardly any flip was noticed; did they hit the values at all?"


def _occurrences(content: bytes, value: bytes) -> list[int]:
    places, at = [], content.find(value)
    while at >= 0:
        places.append(at)
        at = content.find(value, at + 1)
    return places


def _damage_is_found(directory: Path, values: dict[bytes, bytes]) -> bool:
    """Read all there is; a wrong answer fails the test. Returns whether damage was named."""
    machine = KVStateMachine(directory)
    damaged = False
    try:
        for key, value in values.items():
            for back in (0, 1):
                expected = value if not back else b"old-" + value
                revision = 3 + 2 * sorted(values, key=lambda k: int(k[4:])).index(key) - back
                try:
                    answer = machine.query(pb.RangeRequest(key=key, revision=revision))
                except Damaged as error:
                    assert str(error)
                    damaged = True
                else:
                    assert [pair.value for pair in answer.kvs] == [expected]
        try:
            drain(scrub_steps(machine.store))
        except Damaged:
            damaged = True
    finally:
        machine.store.backend.close()
    return damaged


def test_a_missing_record_is_damage_not_absence(driver: Driver) -> None:
    driver.put(b"a")
    backend = driver.machine.store.backend
    with backend.txn.cursor(db=backend.revisions) as cursor:
        assert cursor.last()
        name = cursor.key()
    backend.txn.delete(name, db=backend.revisions)
    with pytest.raises(Damaged, match="missing"):
        driver.range(b"a")
    with pytest.raises(Damaged, match="missing"):
        drain(scrub_steps(driver.machine.store))


def test_a_bad_snapshot_is_refused_and_the_state_stays(driver: Driver) -> None:
    driver.put(b"a", b"x" * 1000)
    frozen = driver.machine.snapshot()
    good = b"".join(frozen.chunks())
    frozen.release()
    before = driver.machine.state_hash()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    newer = good.replace(b"SNAPSHOT-0001", b"SNAPSHOT-0009")
    for bad in (b"", good[:-1], good + b"x", b"hello" * 99, bytes(flipped), newer):
        with pytest.raises(StorageError, match="snapshot cannot be restored"):
            for _ in driver.machine.restore_steps([bad], Position(9, 2, 0, 0)):
                pass
        assert driver.machine.state_hash() == before
    assert sorted(os.listdir(driver.directory)) == ["state.mdb", "state.mdb-lock"]
