"""A data directory belongs to one member, and to one process at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.errors import StorageError
from consensus.storage.directory import DataDirectory

MINE = {"engine": "native", "version": 1, "cluster": "west", "member": "ann"}


def held(path: Path, **changes: object) -> DataDirectory:
    return DataDirectory(path, {**MINE, **changes}, data="*.wal")


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from consensus.storage.directory import DataDirectory\n"
        f"DataDirectory(pathlib.Path(sys.argv[1]), {MINE!r}, data='*.wal')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"in use by process {holder.pid}; stop it, or give"):
            held(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    held(tmp_path).close()


def test_it_can_be_taken_again_once_it_was_given_back(tmp_path: Path) -> None:
    first = held(tmp_path)
    with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
        held(tmp_path)
    first.close()
    first.close()
    held(tmp_path).close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"member": "bob"},
            "belongs to another member: its member is 'ann', this member's is 'bob'",
        ),
        ({"cluster": "east"}, "belongs to another cluster: its cluster is 'west'"),
        ({"version": 2}, "has format version 1; this program reads version 2"),
        ({"engine": "other"}, "was written by the native engine; this is the other engine"),
    ],
)
def test_somebody_elses_data_are_refused_by_name(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    held(tmp_path).close()
    before = (tmp_path / "identity.json").read_text()
    with pytest.raises(StorageError, match=said):
        held(tmp_path, **changes)
    assert (tmp_path / "identity.json").read_text() == before
    held(tmp_path).close()


def test_a_log_without_an_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.wal").touch()
    with pytest.raises(StorageError, match=r"identity\.json is missing beside a log"):
        held(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"incarnation": "x"}'])
def test_an_identity_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(StorageError, match=r"identity\.json cannot be read"):
        held(tmp_path)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        held(tmp_path / "file")


def test_every_life_gets_a_greater_number_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    given: list[int] = []
    for at_least in (1_000, 1_000, 5, 2_000, 7):
        directory = held(tmp_path)
        assert directory.incarnation == (given[-1] if given else 0)
        given.append(directory.begin(at_least))
        directory.close()
    assert given == [1_000, 1_001, 1_002, 2_000, 2_001]
    assert json.loads((tmp_path / "identity.json").read_text())["member"] == "ann"


def test_a_crash_while_the_identity_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    directory = held(tmp_path)
    directory.begin(10)
    directory.close()
    (tmp_path / "identity.json.tmp").write_text('{"half')
    directory = held(tmp_path)
    assert directory.incarnation == 10
    directory.close()
