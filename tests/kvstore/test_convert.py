"""Data directories of another engine: refused with what converts them, and converted."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from kvstore.cli import server
from kvstore.client import Client, EtcdError
from tests.clusters import Cluster, Member, Program
from tests.waiting import wait_until_sync

ROUNDS = 3
KEYS = 40


def run(words: list[str]) -> tuple[int, str]:
    """Run a server's command line to its end; return exit status and what it said."""
    done = subprocess.run(words, capture_output=True, timeout=60, check=False, text=True)
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return done.returncode, text


def kvstore(words: list[str]) -> tuple[int, str]:
    """The same in this process, for what starts no server."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = server.run(words)
    return status, out.getvalue()


def convert(cluster: Cluster, member: Member) -> tuple[int, str]:
    """Convert one member with its own flags."""
    flags = cluster.command(member)[len(cluster.program.command) :]
    return kvstore(["convert", "--to", "native", *flags])


def written(cluster: Cluster, round: int) -> None:
    """Put keys through the members that run."""
    endpoints = [member.client for member in cluster.members if member.running]
    with Client(endpoints) as client:

        def put(number: int) -> bool:
            try:
                client.put(f"/{round}/{number}", f"{number}")
            except EtcdError:
                return False  # an election may be on: put it again
            return True

        for number in range(KEYS):
            wait_until_sync(lambda number=number: put(number), 30, "puts are acknowledged")


def everything(member: Member) -> dict[bytes, tuple[int, bytes]]:
    """All keys of one member: revision and value."""
    with Client(member.client, timeout_s=30, dial_timeout_s=30) as client:
        return {pair.key: (pair.mod_revision, pair.value) for pair in client.get_prefix("/")}


def test_a_cluster_goes_on_after_its_conversion(tmp_path: Path) -> None:
    """Three members whose logs differ, one far behind: killed, converted, started again."""
    cluster = Cluster(Program.kvstore("pysyncobj"), tmp_path, flags=("--snapshot-count", "50"))
    with cluster:
        written(cluster, 0)
        cluster.kill(cluster.members[2], signal.SIGKILL)
        for round in range(1, ROUNDS):
            written(cluster, round)
        before = everything(cluster.members[0])
        assert len(before) == ROUNDS * KEYS
        for member in cluster.members[:2]:
            cluster.kill(member, signal.SIGKILL)
    assert any((tmp_path / "kvstore0.etcd").glob("member/engine/snapshot.dump"))
    cluster.program = Program.kvstore("native")
    status, text = run(cluster.command(cluster.members[0]))
    assert status == 1
    assert "was written by --engine pysyncobj" in text
    assert "run `kvstore convert --to native`" in text
    for member in cluster.members:
        status, text = convert(cluster, member)
        assert status == 0, text
        assert "converted from pysyncobj to native" in text
        assert (member.data / "member/engine.pysyncobj/term.json").exists()
    status, text = convert(cluster, cluster.members[0])
    assert (status, "nothing was done" in text) == (0, True)
    with cluster:
        written(cluster, ROUNDS)
        after = [everything(member) for member in cluster.members]
        assert after[0] == after[1] == after[2]
        assert len(after[0]) == (ROUNDS + 1) * KEYS
        assert before.items() <= after[0].items()
    # The way back is by a backup, and says so.
    cluster.program = Program.kvstore("pysyncobj")
    status, text = run(cluster.command(cluster.members[0]))
    assert status == 1
    assert "was written by --engine native" in text
    assert "`kvctl snapshot restore FILE --engine pysyncobj`" in text


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A stopped cluster of one on PySyncObj."""
    single = Cluster(Program.kvstore("pysyncobj"), tmp_path_factory.mktemp("one"), size=1)
    with single:
        written(single, 0)
    return single


def test_a_conversion_that_was_interrupted_is_finished(stopped: Cluster, tmp_path: Path) -> None:
    """Killed between its two renames: no server starts on that, and the same command ends it."""
    (member,) = stopped.members
    kept = member.data
    member.data = tmp_path / "data"
    shutil.copytree(kept, member.data)
    engine = member.data / "member/engine"
    status, text = convert(stopped, member)
    assert status == 0, text
    engine.rename(member.data / "member/engine.native")
    program, stopped.program = stopped.program, Program.kvstore("native")
    status, text = run(stopped.command(member))
    assert status == 1
    assert "its conversion to native was interrupted" in text
    assert not engine.exists()
    status, text = convert(stopped, member)
    assert (status, "finished the conversion" in text) == (0, True)
    with stopped, Client(member.client) as client:
        assert len(client.get_prefix("/0/")) == KEYS
    member.data, stopped.program = kept, program


def test_what_cannot_be_converted_is_told(stopped: Cluster, tmp_path: Path) -> None:
    (member,) = stopped.members
    kept = member.data
    status, text = kvstore(["convert"])
    assert status == 2
    assert "kvstore convert --to native" in text
    status, text = kvstore(["convert", "--to=native", "--data-dir", str(tmp_path / "none")])
    assert status == 1
    assert "holds no member's data" in text
    status, text = kvstore(["convert", "--to=native", "--data-dir", str(kept), "--name", "other"])
    assert status == 1
    assert "belongs to member" in text
    member.data = tmp_path / "data"
    shutil.copytree(kept, member.data)
    (segment,) = (member.data / "member/engine").glob("log-*.seg")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    status, text = convert(stopped, member)
    assert status == 1
    assert f"{segment} has a record" in text
    assert sorted(path.name for path in segment.parent.parent.iterdir()) == [
        *("db", "engine", "engine.native.part", "identity.json", "lock")
    ]
    member.data = kept
