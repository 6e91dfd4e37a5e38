"""A file of the operating system: what is written is read; reserved blocks are written ahead."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.storage.files import WRITE_AHEAD_BYTES, RealFile

SIZE = 4 * WRITE_AHEAD_BYTES
BLOCK = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file is to be, on a file system that tells reserved blocks from written ones."""
    path = tmp_path / "file"
    file = RealFile(path)
    file.resize(SIZE)
    file.close()
    if first_unwritten(path) != 0:
        pytest.skip("this file system does not tell reserved blocks from written ones")
    path.unlink()
    return path


@pytest.fixture
def reserved(path: Path) -> Iterator[RealFile]:
    """A file of reserved blocks."""
    file = RealFile(path)
    file.resize(SIZE)
    yield file
    file.close()


def first_unwritten(path: Path) -> int:
    """Where the first block begins that was never written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE)
    finally:
        os.close(descriptor)


def test_zeros_are_written_ahead_of_what_is_appended(path: Path, reserved: RealFile) -> None:
    reserved.write(0, b"a" * 100)
    assert first_unwritten(path) >= WRITE_AHEAD_BYTES
    assert reserved.read(0, BLOCK) == b"a" * 100 + bytes(BLOCK - 100)


def test_zeros_are_written_once_in_a_long_while(
    reserved: RealFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    pwrite = os.pwrite

    def count(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(len(data))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", count)
    for offset in range(0, SIZE, BLOCK):
        reserved.write(offset, b"b" * BLOCK)
    ahead = [size for size in calls if size != BLOCK]
    assert len(calls) - len(ahead) == SIZE // BLOCK
    assert len(ahead) <= SIZE // WRITE_AHEAD_BYTES
    assert reserved.read(0, SIZE) == b"b" * SIZE


def test_what_an_earlier_life_reserved_is_written_ahead_too(path: Path, reserved: RealFile) -> None:
    reserved.write(0, b"c" * BLOCK)
    reserved.sync()
    again = RealFile(path)
    end = 2 * WRITE_AHEAD_BYTES
    assert again.read(end, SIZE) == bytes(SIZE - end)  # as who opens a log does
    again.note_blank(end)
    again.write(end, b"d")
    assert again._blank_from == end + 1 + WRITE_AHEAD_BYTES
    assert again.read(0, BLOCK) == b"c" * BLOCK
    again.close()


def test_what_stands_further_on_is_left_alone(path: Path, reserved: RealFile) -> None:
    reserved.write(WRITE_AHEAD_BYTES // 2, b"far")
    again = RealFile(path)
    again.write(0, b"near")
    assert again.read(0, 4) == b"near"
    assert again.read(WRITE_AHEAD_BYTES // 2, 4) == b"far\0"
    again.close()


def test_a_file_that_was_cut_and_reserved_anew_is_written_ahead_again(
    path: Path, reserved: RealFile
) -> None:
    reserved.write(0, b"c" * (2 * WRITE_AHEAD_BYTES))
    reserved.resize(BLOCK)
    reserved.resize(SIZE)
    assert reserved.read(BLOCK, SIZE) == bytes(SIZE - BLOCK)
    reserved.write(BLOCK, b"d")
    assert first_unwritten(path) >= WRITE_AHEAD_BYTES


def test_a_file_that_was_not_reserved_grows_by_what_is_written(tmp_path: Path) -> None:
    file = RealFile(tmp_path / "file")
    file.write(0, b"ab")
    file.write(2, b"cd")
    assert file.size() == 4
    assert file.read(0, 9) == b"abcd"
    file.close()


writes = st.tuples(st.just("write"), st.integers(0, 200_000), st.integers(1, 70_000))
resizes = st.tuples(st.just("resize"), st.integers(1, 300_000), st.just(0))
reopens = st.tuples(st.just("reopen"), st.just(0), st.just(0))


@given(st.lists(st.one_of(writes, writes, resizes, reopens), max_size=12))
def test_it_reads_as_an_array_of_bytes_does(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path, model = Path(directory) / "file", bytearray()
        file = RealFile(path)
        for number, (kind, at, size) in enumerate(steps):
            if kind == "write":
                data = bytes([number + 1]) * size
                file.write(at, data)
                model.extend(bytes(max(0, at + size - len(model))))
                model[at : at + size] = data
            elif kind == "resize":
                file.resize(at)
                del model[at:]
                model.extend(bytes(at - len(model)))
            else:
                file.close()
                file = RealFile(path)
        assert file.size() == len(model)
        assert file.read(0, len(model) + 1) == model
        file.close()
