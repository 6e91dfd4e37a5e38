"""The server as a process: it starts, refuses what is wrong with one clear line, and stops fast."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import grpc
import pytest

from consensus.errors import StorageError
from kvstore.datadir import DataDirectory
from kvstore.identity import id_of, identify
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.snapshot_file import check_snapshot_file, stream_pieces, tail
from kvstore.urls import parse_urls
from tests.interop import free_ports, require_program
from tests.kvstore.rpc.member import running_member
from tests.waiting import wait_until, wait_until_sync

COMMAND = (sys.executable, "-m", "kvstore.cli.server")
READY = "ready to serve client requests"


@attrs.define
class Process:
    """A kvstore process, its client address and its log."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def wait_ready(self) -> None:
        wait_until_sync(
            lambda: READY in self.log.read_text() or self.process.poll() is not None,
            timeout_s=30,
        )
        assert self.process.poll() is None, self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit status and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(timeout=20)
        return status, time.monotonic() - began


class Launcher:
    """Starts kvstore processes and ends those that a test left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Process] = []

    def start(self, *flags: str, data: str = "data", engine: str = "native") -> Process:
        client, peer = free_ports(2)
        log = self.directory / f"log{len(self.started)}"
        words = [
            *COMMAND,
            *("--engine", engine, "--data-dir", str(self.directory / data)),
            *("--listen-client-urls", f"http://127.0.0.1:{client}"),
            *("--advertise-client-urls", f"http://127.0.0.1:{client}"),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
            *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
            *flags,
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(words, stdout=out, stderr=out, cwd=self.directory)
        self.started.append(Process(process, f"127.0.0.1:{client}", log))
        return self.started[-1]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    found = Launcher(tmp_path)
    yield found
    for each in found.started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def refused(*flags: str, cwd: Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run kvstore with settings that it must refuse; return exit status and what it said."""
    done = subprocess.run(
        [*COMMAND, *flags],
        cwd=cwd,
        env=os.environ | (environment or {}),
        capture_output=True,
        timeout=30,
        check=False,
    )
    text = (done.stdout + done.stderr).decode()
    assert "Traceback" not in text, text
    return done.returncode, text


def test_version_is_readable_for_etcds_tools() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, timeout=30, check=True)
    lines = done.stdout.decode().splitlines()
    assert re.fullmatch(r"etcd Version: 3\.\d+\.\d+", lines[0])
    assert [line.split(":")[0] for line in lines[1:4]] == ["Git SHA", "Go Version", "Go OS/Arch"]
    assert lines[4].startswith("Raftyard Version: ")


def test_help_names_every_flag() -> None:
    done = subprocess.run([*COMMAND, "-h"], capture_output=True, timeout=30, check=True)
    text = done.stdout.decode()
    for part in ("kvctl put greeting hello", "--initial-cluster", "--engine", "peer-cert-file"):
        assert part in text


def test_wrong_command_lines_and_settings(tmp_path: Path) -> None:
    status, text = refused("--data-dri", "x", cwd=tmp_path)
    assert status == 2
    assert "flag provided but not defined: --data-dri; did you mean --data-dir" in text
    status, text = refused("--listen-peer-urls", "10.0.0.1:2380", cwd=tmp_path)
    assert status == 1
    assert text.startswith("kvstore: --listen-peer-urls: URL scheme must be")
    status, text = refused(cwd=tmp_path, environment={"ETCD_ELECTION_TIMEOUT": "1"})
    assert status == 1
    assert "--election-timeout[1ms]" in text
    client = (
        "--listen-client-urls",
        "https://127.0.0.1:1",
        "--advertise-client-urls",
        "https://a:1",
    )
    status, text = refused(*client, "--cert-file", "none", "--key-file", "none", cwd=tmp_path)
    assert status == 1
    assert "kvstore: --cert-file: cannot read none: No such file or directory\n" in text
    assert not list(tmp_path.iterdir()), "nothing was made on disk"


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        status, text = refused(
            *("--listen-client-urls", url, "--advertise-client-urls", url), cwd=tmp_path
        )
        assert status == 1
        assert f"--listen-client-urls: cannot listen on {url}: the address is already in" in text


def test_pickles_beyond_loopback_need_a_password(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://0.0.0.0:{port}"
    client = f"http://127.0.0.1:{free_ports(1)[0]}"
    flags = ("--listen-client-urls", client, "--advertise-client-urls", client)
    password = ("--peer-password-file", "/nonexistent")
    pickles = ("--engine", "pysyncobj")
    status, text = refused(*flags, *pickles, "--listen-peer-urls", url, cwd=tmp_path)
    assert status == 1
    assert "password" in text
    status, text = refused(*flags, *pickles, *password, cwd=tmp_path)
    assert status == 1
    assert "cannot read /nonexistent" in text
    status, text = refused(*flags, *password, cwd=tmp_path)
    assert status == 1
    assert "--peer-password-file is for --engine pysyncobj" in text


def test_a_data_directory_in_use_or_of_another_cluster(launcher: Launcher, tmp_path: Path) -> None:
    running = launcher.start(engine="local")
    running.wait_ready()
    client = f"http://127.0.0.1:{free_ports(1)[0]}"
    flags = (
        *("--engine", "local", "--data-dir", "data"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
    )
    status, text = refused(*flags, cwd=tmp_path)
    assert status == 1
    assert f"is in use by process {running.process.pid};" in text
    running.stop()
    status, text = refused(*flags, "--initial-cluster-token", "other", cwd=tmp_path)
    assert status == 1
    assert "belongs to member 'default'" in text


def test_data_directories_that_cannot_be_used(tmp_path: Path) -> None:
    urls = {"a": parse_urls("http://127.0.0.1:1", "x")}
    ours = identify(urls, "a", "token")
    DataDirectory(tmp_path / "data", ours, engine="native").close()
    DataDirectory(tmp_path / "data", ours, engine="native").close()
    with pytest.raises(StorageError, match=r"belongs to member 'a' .* of cluster"):
        DataDirectory(tmp_path / "data", identify(urls, "a", "other"), engine="native")
    identity = tmp_path / "data/member/identity.json"
    text = identity.read_text()
    identity.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(StorageError, match="has format version 2, this release reads version 1"):
        DataDirectory(tmp_path / "data", ours, engine="native")
    identity.write_text("garbage")
    with pytest.raises(StorageError, match=r"identity\.json is damaged"):
        DataDirectory(tmp_path / "data", ours, engine="native")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot use data directory"):
        DataDirectory(tmp_path / "file/data", ours, engine="native")
    (tmp_path / "real/member/wal").mkdir(parents=True)
    with pytest.raises(StorageError, match="holds data of etcd itself"):
        DataDirectory(tmp_path / "real", ours, engine="native")


def test_ids_are_etcds_own() -> None:
    """The IDs that etcd gives a cluster of one with default settings."""
    urls = {"default": parse_urls("http://localhost:2380", "x")}
    identity = identify(urls, "default", "etcd-cluster")
    assert f"{identity.member_id:x}" == "8e9e05c52164694d"
    assert f"{identity.cluster_id:x}" == "cdf818194e3a8c32"
    assert id_of(None) == 0
    assert id_of(identity.node_id) == identity.member_id


def test_a_damaged_database_is_told_and_not_served(launcher: Launcher, tmp_path: Path) -> None:
    running = launcher.start()
    running.wait_ready()
    running.stop()
    (database,) = (tmp_path / "data/member/db").glob("*.mdb")
    with database.open("r+b") as file:
        file.write(b"\xff" * 8192)
    again = subprocess.run(
        running.process.args, cwd=tmp_path, capture_output=True, timeout=30, check=False
    )
    text = (again.stdout + again.stderr).decode()
    assert again.returncode == 1, text
    assert "Traceback" not in text
    assert str(database) in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_a_signal_even_before_it_is_ready(launcher: Launcher, number: int) -> None:
    peers = free_ports(2)
    alone = launcher.start(
        "--initial-cluster",
        f"default=http://127.0.0.1:{peers[0]},b=http://127.0.0.1:{peers[1]}",
        *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peers[0]}"),
        *("--listen-peer-urls", f"http://127.0.0.1:{peers[0]}"),
    )
    wait_until_sync(lambda: "waiting for a majority" in alone.log.read_text(), timeout_s=20)
    status, seconds = alone.stop(signal.Signals(number))
    assert status == 0
    assert seconds < 2


def test_data_survive_a_restart_and_kill_9(launcher: Launcher, tmp_path: Path) -> None:
    member = launcher.start()
    member.wait_ready()
    with grpc.insecure_channel(member.address) as channel:
        put = channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=pb.PutRequest.SerializeToString,
            response_deserializer=pb.PutResponse.FromString,
        )
        for number in range(50):
            put(pb.PutRequest(key=b"k%d" % number, value=b"v"), timeout=10)
    member.process.kill()
    member.process.wait()
    with member.log.open("wb") as out:
        member.process = subprocess.Popen(member.process.args, stdout=out, stderr=out, cwd=tmp_path)
    member.wait_ready()
    with grpc.insecure_channel(member.address) as channel:
        get = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=pb.RangeRequest.SerializeToString,
            response_deserializer=pb.RangeResponse.FromString,
        )
        found = get(pb.RangeRequest(key=b"k", range_end=b"l", count_only=True), timeout=10)
        assert found.count == 50
    status, seconds = member.stop()
    assert (status, seconds < 2) == (0, True)


async def test_a_thousand_watches_do_not_hold_up_the_stop(launcher: Launcher) -> None:
    member = launcher.start()
    await asyncio.to_thread(member.wait_ready)
    async with grpc.aio.insecure_channel(member.address) as channel:
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        calls = [watch() for _ in range(1000)]
        request = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k"))
        await asyncio.gather(*(call.write(request) for call in calls))
        created = await asyncio.gather(*(call.read() for call in calls))
        assert all(response.created for response in created)
        status, seconds = await asyncio.to_thread(member.stop)
        assert status == 0
        assert seconds < 2
        assert {await call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}


async def test_a_halted_node_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    async with running_member(tmp_path) as (server, _):
        waiting = asyncio.create_task(server.wait_halted())
        server.node.halt("the disk is on fire")
        assert await asyncio.wait_for(waiting, 5) == "the disk is on fire"


async def test_compaction_by_itself_keeps_the_wanted_number_of_revisions(tmp_path: Path) -> None:
    flags = ("--auto-compaction-mode=revision", "--auto-compaction-retention=3")
    async with running_member(tmp_path, *flags) as (server, address):
        async with grpc.aio.insecure_channel(address) as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put",
                request_serializer=pb.PutRequest.SerializeToString,
                response_deserializer=pb.PutResponse.FromString,
            )
            for _ in range(10):
                await put(pb.PutRequest(key=b"k", value=b"v"))
        assert server.compactor is not None
        await server.compactor.look(0.0)
        assert server.machine.store.compact_revision == 11 - 3


@pytest.mark.parametrize("size", [0, 1, 503, 504, 505, 512, 100_000])
def test_snapshot_files_hold_any_stream(tmp_path: Path, size: int) -> None:
    stream = os.urandom(size)
    body = stream + tail(size)
    path = tmp_path / "snapshot"
    path.write_bytes(body + hashlib.sha256(body).digest())
    assert path.stat().st_size % 512 == 32
    assert check_snapshot_file(path) == size
    assert b"".join(stream_pieces(path)) == stream
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StorageError, match="checksum does not match"):
        check_snapshot_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match="not a whole snapshot"):
        check_snapshot_file(path)


@pytest.mark.interop
async def test_real_etcdctl(tmp_path: Path) -> None:
    etcdctl = require_program("etcdctl")

    async def run(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            etcdctl,
            *("--endpoints", address, *words),
            env=os.environ | {"ETCDCTL_API": "3"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, (words, err.decode())
        return out.decode() + (err.decode() if words[0] == "endpoint" else "")

    async with running_member(tmp_path) as (server, address):
        assert await run("put", "foo", "bar") == "OK\n"
        assert await run("put", "foo2", "bar2") == "OK\n"
        assert await run("get", "--prefix", "foo") == "foo\nbar\nfoo2\nbar2\n"
        assert await run("del", "foo2") == "1\n"
        lease = (await run("lease", "grant", "60")).split()[1]
        assert "granted with TTL(60s)" in await run("lease", "timetolive", lease)
        assert "keepalived with TTL(60)" in await run("lease", "keep-alive", lease, "--once")
        assert "compacted revision 3" in await run("compaction", "3")
        assert "is healthy" in await run("endpoint", "health")
        assert "3.6.5" in await run("endpoint", "status")
        assert ", started, default, " in await run("member", "list")
        assert await run("alarm", "list") == ""
        assert "Finished defragmenting" in await run("defrag")
        saved = tmp_path / "saved.db"
        await run("snapshot", "save", str(saved))
        assert check_snapshot_file(saved) > 0
        await wait_until(lambda: server.grpc.open_calls == 0)


def test_locks_are_released_with_the_process(launcher: Launcher, tmp_path: Path) -> None:
    member = launcher.start(engine="local")
    member.wait_ready()
    with (tmp_path / "data/member/lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        member.process.kill()
        member.process.wait()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
