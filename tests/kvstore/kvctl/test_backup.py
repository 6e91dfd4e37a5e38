"""Backups of kvstore: what is in one, and a new three-member cluster made from one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvstore.client.servers import Server, cluster
from tests.kvstore.kvctl.running import etcdctl, kvctl


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A kvstore with some history, a lease and a deleted key."""
    with cluster("kvstore", tmp_path_factory.mktemp("original")) as (server,):
        here = {"ETCDCTL_ENDPOINTS": server.endpoint}
        for number in range(20):
            assert kvctl(("put", f"/config/{number}", str(number)), here).stdout == b"OK\n"
        kvctl(("put", "/config/3", "changed"), here)
        kvctl(("del", "/config/4"), here)
        lease = kvctl(("lease", "grant", "1000"), here).stdout.split()[1].decode()
        kvctl(("put", "/leased", "x", "--lease", lease), here)
        yield server


@pytest.fixture(scope="module")
def backup(original: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    path = tmp_path_factory.mktemp("backup") / "backup.db"
    saved = kvctl(("snapshot", "save", str(path)), {"ETCDCTL_ENDPOINTS": original.endpoint})
    assert saved.stdout == f"Snapshot saved at {path}\n".encode(), saved.stderr
    return path


def test_status_shows_what_is_in_it(original: Server, backup: Path) -> None:
    here = {"ETCDCTL_ENDPOINTS": original.endpoint}
    fields = kvctl(("get", "x", "-w", "fields"), here).stdout.decode()
    revision = int(fields.split('"Revision" : ')[1].split("\n")[0])
    simple = kvctl(("snapshot", "status", str(backup)), {})
    assert re.fullmatch(rf"[0-9a-f]+, {revision}, 23, [0-9.]+ kB\n", simple.stdout.decode())
    found = json.loads(kvctl(("snapshot", "status", str(backup), "-w", "json"), {}).stdout)
    assert found["revision"] == revision
    assert found["totalSize"] == backup.stat().st_size - 32
    table = kvctl(("snapshot", "status", str(backup), "-w", "table"), {}).stdout
    assert b"| REVISION | TOTAL KEYS | TOTAL SIZE |" in table


def test_a_new_cluster_is_made_from_it(original: Server, backup: Path, tmp_path: Path) -> None:
    """Three members, restored from one file, go on from its state: keys, history and leases."""
    before = {"ETCDCTL_ENDPOINTS": original.endpoint}

    def restore(servers: list[Server]) -> None:
        for server in servers:
            flags = [
                flag
                for flag in server.command
                if flag.startswith(("--name=", "--data-dir=", "--initial-"))
                and not flag.startswith("--initial-cluster-state")
            ]
            done = kvctl(("snapshot", "restore", str(backup), *flags), {})
            assert (done.status, done.stderr) == (0, b"")
            assert b"of infra0, infra1, infra2" in done.stdout

    with cluster(
        "kvstore", tmp_path, 3, "--initial-cluster-token=restored", prepare=restore
    ) as new:
        here = {"ETCDCTL_ENDPOINTS": ",".join(server.endpoint for server in new)}

        def same(*command: str) -> None:
            ours, theirs = kvctl(command, here), kvctl(command, before)
            assert (ours.stdout, ours.status) == (theirs.stdout, 0), command

        same("get", "/", "--prefix")
        same("get", "/config/3", "--rev", "5")
        same("get", "/config/4", "--rev", "6")
        same("lease", "list")
        revision = json.loads(kvctl(("get", "x", "-w", "json"), here).stdout)["header"]["revision"]
        assert kvctl(("put", "/after", "1"), here).stdout == b"OK\n"
        after = json.loads(kvctl(("get", "/after", "-w", "json"), here).stdout)
        assert after["kvs"][0]["mod_revision"] == revision + 1
        hashes = kvctl(("endpoint", "hashkv"), here).stdout.splitlines()
        assert len({line.rpartition(b", ")[2] for line in hashes}) == 1
        assert len(hashes) == 3
        # Killed together and started again, the new cluster is the same.
        for server in new:
            server.kill()
        for server in new:
            server.launch()
        for server in new:
            server.wait_healthy()
        assert kvctl(("get", "/after"), here).stdout == b"/after\n1\n"
        assert kvctl(("get", "/config/", "--prefix", "--count-only"), here).stdout == b"19\n"


def test_bad_files_are_named(backup: Path, tmp_path: Path) -> None:
    content = backup.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for name, data, told in (
        ("cut", content[:-700], "not a whole snapshot"),
        ("damaged", bytes(damaged), "checksum does not match"),
        ("empty", b"", "not a whole snapshot"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        for command in (("status",), ("restore", "--data-dir", str(tmp_path / "made"))):
            output = kvctl(("snapshot", command[0], str(path), *command[1:]), {})
            assert output.status == 1
            assert told.encode() in output.stderr
            assert len(output.stderr.splitlines()) == 1
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "made.part").exists()
    missing = kvctl(("snapshot", "status", str(tmp_path / "none")), {})
    assert b"none: No such file or directory" in missing.stderr


def test_a_directory_that_exists_is_kept(backup: Path, tmp_path: Path) -> None:
    output = kvctl(("snapshot", "restore", str(backup), "--data-dir", str(tmp_path)), {})
    assert output.status == 1
    assert b"exists: give another" in output.stderr
    wrong = kvctl(
        ("snapshot", "restore", str(backup), "--initial-cluster", "a=http://127.0.0.1:1"), {}
    )
    assert b"couldn't find local name" in wrong.stderr


@pytest.mark.interop
def test_etcds_own_backup_is_told_apart(tmp_path: Path) -> None:
    with cluster("etcd", tmp_path) as (server,):
        path = tmp_path / "etcd.db"
        here = {"ETCDCTL_ENDPOINTS": server.endpoint, "ETCDCTL_API": "3"}
        assert etcdctl(("snapshot", "save", str(path)), here).status == 0
    output = kvctl(("snapshot", "status", str(path)), {})
    assert output.status == 1
    assert b"is a backup of etcd itself (a bbolt database)" in output.stderr


@pytest.mark.interop
def test_reads_equal_etcdctls_on_kvstore(original: Server) -> None:
    """The same bytes from etcdctl and kvctl on a kvstore."""
    here = {"ETCDCTL_ENDPOINTS": original.endpoint, "ETCDCTL_API": "3"}
    for command in (
        ("get", "/", "--prefix"),
        ("get", "/", "--prefix", "-w", "json"),
        ("get", "/", "--prefix", "-w", "fields", "--limit", "3"),
        ("lease", "list", "-w", "json"),
        ("member", "list"),
        ("member", "list", "-w", "table"),
        ("endpoint", "status"),
        ("endpoint", "hashkv"),
        ("alarm", "list"),
    ):
        # The store may commit between two commands, and its file grows then: ask until it does not.
        for _ in range(10):
            theirs, ours = etcdctl(command, here), kvctl(command, here)
            if etcdctl(command, here).stdout == theirs.stdout:
                break
        assert (ours.stdout, ours.status) == (theirs.stdout, theirs.status), command
