"""A process that a fault of the memory or disk ends leaves word, and the next one acts on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from consensus.errors import DataDamaged
from kvstore.config import ServerConfig, load
from kvstore.lastlife import LastLife
from kvstore.machine import DATABASE_NAME, KVStateMachine
from kvstore.opening import open_machine
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.kvstore.damage.flips import Content

DIES = """
import os, signal, sys
from pathlib import Path
from kvstore.lastlife import LastLife
life = LastLife(Path(sys.argv[1]))
getattr(life, sys.argv[2])()
os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


def die(path: Path, stage: str, how: str) -> None:
    """End a process in a stage of its life."""
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(path), stage, how],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode < 0, done.stderr.decode()


def settings(directory: Path, names: str = "abc") -> ServerConfig:
    cluster = ",".join(f"{name}=http://127.0.0.1:{port}" for port, name in enumerate(names, 1))
    return load(
        [
            *("--name", "a", "--data-dir", str(directory), "--initial-cluster", cluster),
            *("--initial-advertise-peer-urls", "http://127.0.0.1:1"),
        ]
    )


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    machine = KVStateMachine(tmp_path)
    Content(60, seed=1).write(machine)
    machine.close()
    return tmp_path


def spoil(directory: Path) -> None:
    """Change a bit of every copy of one value."""
    data = (directory / DATABASE_NAME).read_bytes()
    assert b"written at 000030" in data
    changed = data.replace(b"written at 000030", b"written at 000031")
    (directory / DATABASE_NAME).write_bytes(changed)


@pytest.mark.parametrize(("how", "cause"), [("SIGBUS", "Bus error"), ("SIGSEGV", "Segmentation")])
def test_the_cause_is_kept(tmp_path: Path, how: str, cause: str) -> None:
    path = tmp_path / "last-life"
    die(path, "serves", how)
    last = LastLife(path)
    assert last.cause.startswith(cause) and not last.was_checking
    die(path, "checks", how)
    assert LastLife(path).was_checking


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_an_end_from_outside_is_none_of_it(tmp_path: Path, how: str) -> None:
    die(tmp_path / "last-life", "checks", how)
    last = LastLife(tmp_path / "last-life")
    assert (last.cause, last.was_checking) == ("", False)


async def test_a_sound_store_is_checked_and_kept(filled: Path) -> None:
    die(filled / "last-life", "serves", "SIGSEGV")
    last = LastLife(filled / "last-life")
    machine = await open_machine(settings(filled), filled, last)
    assert machine.position().index == 121
    machine.close()
    last.close()
    assert LastLife(filled / "last-life").cause == ""


async def test_damage_that_nobody_asked_for_is_found_before_serving(filled: Path) -> None:
    spoil(filled)
    die(filled / "last-life", "serves", "SIGBUS")
    last = LastLife(filled / "last-life")
    machine = await open_machine(settings(filled), filled, last)
    assert machine.position().index == 0, "it is to be rebuilt"
    assert (filled / f"{DATABASE_NAME}.damaged").exists()
    machine.close()
    last.close()


async def test_a_store_that_cannot_be_checked_makes_way(filled: Path) -> None:
    die(filled / "last-life", "checks", "SIGBUS")
    last = LastLife(filled / "last-life")
    machine = await open_machine(settings(filled), filled, last)
    assert machine.query(pb.RangeRequest(key=b"\0", range_end=b"\0")).count == 0
    machine.close()
    last.close()


@pytest.mark.parametrize("stage", ["serves", "checks"])
async def test_the_only_member_keeps_what_it_has(filled: Path, stage: str) -> None:
    spoil(filled)
    before = (filled / DATABASE_NAME).read_bytes()
    die(filled / "last-life", stage, "SIGBUS")
    last = LastLife(filled / "last-life")
    with pytest.raises(DataDamaged):
        await open_machine(settings(filled, "a"), filled, last)
    last.close()
    assert (filled / DATABASE_NAME).read_bytes() == before
