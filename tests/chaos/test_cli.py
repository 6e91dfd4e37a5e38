"""The command line: exit codes, clear refusals, and no traceback."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import main
from chaos.history.format import Outcome, WatchEvent
from chaos.history.recorder import Recorder

FLOOR = {"ok_per_s": 0.0, "writes": 1, "reads": 1}


def write_history(path: Path, seen: str = "0-1", floor: dict[str, float] | None = None) -> Path:
    """Two puts and a read; with ``seen`` "0-0" the read is stale."""
    header = {"base_revision": 1, "floor": floor or FLOOR}
    with Recorder(path, header) as recorder:
        for number, value in ((2, "0-0"), (3, "0-1")):
            put = recorder.invoke(0, "put", "a", value=value)
            put.revision = number
            recorder.complete(put, Outcome.OK)
        get = recorder.invoke(1, "get", "a")
        get.seen, get.seen_revision, get.revision = (seen, 2, 2) if seen == "0-0" else (seen, 3, 3)
        recorder.complete(get, Outcome.OK)
        for member in ("n1", "n2"):
            recorder.watch(member, [WatchEvent(2, "a", "0-0"), WatchEvent(3, "a", "0-1")])
        recorder.close({})
    return path


@pytest.mark.parametrize(
    ("seen", "floor", "code", "verdict"),
    [
        ("0-1", None, 0, "ok"),
        ("0-0", None, 1, "violated"),
        ("0-1", {"ok_per_s": 0.0, "writes": 9, "reads": 1}, 2, "invalid"),
    ],
)
def test_check_says_it_in_its_exit_code(
    tmp_path: Path, seen: str, floor: dict[str, float] | None, code: int, verdict: str
) -> None:
    path = write_history(tmp_path / "history.jsonl", seen, floor)
    for_programs = CliRunner().invoke(main, ["check", str(path), "--json"])
    assert for_programs.exit_code == code
    assert json.loads(for_programs.output)["verdict"] == verdict
    for_people = CliRunner().invoke(main, ["check", str(path)])
    assert for_people.exit_code == code
    assert verdict in for_people.output


def test_a_stale_read_is_told_to_people(tmp_path: Path) -> None:
    path = write_history(tmp_path / "history.jsonl", "0-0")
    output = CliRunner().invoke(main, ["check", str(path)]).output
    assert "stale read: revision 3 had been answered before this get of a began" in output


@pytest.mark.parametrize("content", [None, "", "nonsense\n"])
def test_a_bad_file_is_named_without_traceback(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 2
    assert str(path) in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["run", "--faults", "earthquake"],
            "'earthquake' is not a package of faults; there are",
        ),
        (["run", "--target", "oracle"], "'oracle' is not one of"),
        (["run", "--seconds", "1"], "is not in the range"),
        (["run", "--nodes", "2"], "is not in the range"),
        (["run", "--frobnicate"], "No such option"),
    ],
)
def test_wrong_options_are_refused(words: list[str], text: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert text in result.output
    assert "Traceback" not in result.output


def test_a_target_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["run", "--target", "etcd", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "etcd is not on PATH" in result.output
    result = CliRunner().invoke(main, ["run", "--proxy", "toxiproxy"])
    assert result.exit_code == 2
    assert "toxiproxy-server is not on PATH; take --proxy toxid" in result.output


def test_an_output_directory_that_cannot_be_made_is_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    words = ["run", "--target", "kvstore", "--out", str(tmp_path / "file" / "below")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "Not a directory" in result.output
    assert "Traceback" not in result.output


def test_a_directory_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    write_history(tmp_path / "control" / "history.jsonl")
    words = ["run", "--target", "kvstore", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "already holds a run; choose another directory" in json.loads(result.output)["error"]


def test_toxid_serves_until_sigterm() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "chaos.cli", "toxid", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("toxid:"))
        host, _, port = line.split()[4].removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5):
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0


def test_toxid_on_a_taken_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "chaos.cli", "toxid", "--port", port],
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
