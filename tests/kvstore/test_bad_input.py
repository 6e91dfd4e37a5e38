"""Bad input to real processes: each has a clear message, the right status, and no traceback.

Line by line what the issue of a first release asks for, where no other test has it on a real
process already (``test_server``: unknown flag, client port in use, data directory in use or of
another cluster, a damaged header; ``kvctl/test_on_its_own``: wrong commands and flags).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import grpc
import pytest

from kvstore.client import Client, Code, EndpointsUnavailable, EtcdError
from tests.clusters import Cluster, Member, Program
from tests.interop import free_ports
from tests.kvstore.kvctl import running
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.xdist_group("bad-input")

SERVER = (sys.executable, "-m", "kvstore.cli.server")
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
KVCTL = (sys.executable, "-m", "kvstore.cli.kvctl")


@attrs.frozen
class Done:
    """What a command said, and its exit status."""

    stdout: str
    stderr: str
    status: int


def run(*words: str, cwd: Path | None = None, stdin: bytes = b"") -> Done:
    """Run a command to its end; whatever it says, it is no traceback."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ETCD")}
    done = subprocess.run(
        words, cwd=cwd, env=kept, input=stdin, capture_output=True, timeout=30, check=False
    )
    assert b"Traceback" not in done.stdout + done.stderr, done.stderr.decode()
    return Done(done.stdout.decode(), done.stderr.decode(), done.returncode)


def complaint(done: Done) -> str:
    """The one line in which kvstore says why it does not start."""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("kvstore: ")]
    return line


def told(done: Done) -> str:
    """The one line of kvctl's."""
    (line,) = done.stderr.splitlines()
    return line


def kvctl(member: str, *words: str, stdin: bytes = b"") -> Done:
    """Run kvctl on one member; what would be a traceback fails the test by itself."""
    output = running.kvctl(words, {"ETCDCTL_ENDPOINTS": member}, stdin)
    return Done(output.stdout.decode(), output.stderr.decode(), output.status)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members that serve after every test; at the end no log may hold a traceback."""
    with Cluster(Program.kvstore(), tmp_path_factory.mktemp("bad")) as three:
        yield three
    for member in three.members:
        assert "Traceback" not in member.log.read_text(), member.log


@pytest.fixture
def served(cluster: Cluster) -> Iterator[str]:
    """A member's address; after the test it must still serve."""
    yield cluster.endpoints[0]
    with Client(cluster.endpoints[0]) as client:
        client.put("/after", "fine")


# -- the server's settings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:2379", "did you mean http://localhost:2379?"),
        ("http://127.0.0.1:99999", "Port out of range"),
        ("http://nohost.invalid:1", "expected IP in URL for binding"),
        ("http://192.0.2.1:2379", "this machine does not have that address"),
    ],
)
def test_bad_urls(url: str, message: str, tmp_path: Path) -> None:
    advertised = ("--advertise-client-urls", "http://127.0.0.1:1")
    refused = run(*SERVER, "--listen-client-urls", url, *advertised, cwd=tmp_path)
    assert refused.status == 1
    line = complaint(refused)
    assert line.startswith("kvstore: --listen-client-urls: ")
    assert message in line


def test_a_taken_peer_or_metrics_port(tmp_path: Path) -> None:
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        clients = ("--listen-client-urls", client, "--advertise-client-urls", client)
        refused = run(
            *(*SERVER, *clients, "--data-dir", "peer", "--listen-peer-urls", f"http://{address}"),
            *("--initial-advertise-peer-urls", f"http://{address}"),
            *("--initial-cluster", f"default=http://{address}"),
            cwd=tmp_path,
        )
        assert refused.status == 1
        assert f"cannot listen for peers on {address}: Address already in use" in complaint(refused)
        refused = run(
            *(*SERVER, *clients, "--data-dir", "metrics", "--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
            *("--listen-metrics-urls", f"http://{address}"),
            cwd=tmp_path,
        )
        assert refused.status == 1
        assert "--listen-metrics-urls: cannot listen on" in complaint(refused)


# -- the database --------------------------------------------------------------------------------

VALUE = b"x" * 20_000


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one that was stopped with data in it. Tests damage it and put it right."""
    single = Cluster(Program.kvstore(), tmp_path_factory.mktemp("one"), size=1)
    with single, Client(single.endpoints) as client:
        client.put("a", VALUE)
        for number in range(100):
            client.put(f"k{number}", "v")
    yield single
    single.stop()


@pytest.fixture
def file_of(stopped: Cluster) -> Iterator[Callable[[str], Path]]:
    """Find a file of the database by its name; it is as it was after the test."""
    (member,) = stopped.members
    kept: dict[Path, bytes] = {}

    def find(pattern: str) -> Path:
        (path,) = (member.data / "member").glob(pattern)
        kept[path] = path.read_bytes()
        return path

    yield find
    stopped.stop()
    for path, content in kept.items():
        if path.is_dir():
            path.rmdir()
        path.touch()
        path.chmod(0o600)
        path.write_bytes(content)


def refusal(single: Cluster) -> str:
    """Start the only member, which must not serve; return its last words."""
    (member,) = single.members
    return complaint(run(*single.command(member)))


def test_a_database_that_cannot_be_read(stopped: Cluster, file_of: Callable[[str], Path]) -> None:
    path = file_of("db/state.mdb")
    path.unlink()
    path.mkdir()
    assert f"{path} cannot be read: Is a directory" in refusal(stopped)


def test_a_database_without_permission(stopped: Cluster, file_of: Callable[[str], Path]) -> None:
    path = file_of("db/state.mdb")
    path.chmod(0)
    (member,) = stopped.members
    done = subprocess.run(
        stopped.command(member),
        capture_output=True,
        timeout=30,
        check=False,
        preexec_fn=heed_permissions,
    )
    refused = Done(done.stdout.decode(), done.stderr.decode(), done.returncode)
    assert f"{path} cannot be read: Permission denied" in complaint(refused)
    assert "Traceback" not in refused.stderr


def heed_permissions() -> None:
    """In the child: root without its right to read everything (and no change for others)."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.parametrize("left_pages", [1, 2, 7])
def test_a_database_that_was_cut_short(
    stopped: Cluster, file_of: Callable[[str], Path], left_pages: int
) -> None:
    path = file_of("db/state.mdb")
    os.truncate(path, left_pages * 4096 + 100)
    line = refusal(stopped)
    assert str(path) in line or "the store is damaged" in line
    assert "the disk" in line or "let it rebuild from the other members" in line


def test_a_damaged_value(stopped: Cluster, file_of: Callable[[str], Path]) -> None:
    path = file_of("db/state.mdb")
    content = bytearray(path.read_bytes())
    content[content.index(VALUE[:3000]) + 1500] ^= 1
    path.write_bytes(content)
    (member,) = stopped.members
    halted = run(*stopped.command(member))
    assert halted.status == 1
    (last,) = [
        event["reason"]
        for event in map(json.loads, halted.stderr.splitlines())
        if event["msg"] == "this member has stopped to keep its promises"
    ]
    assert "the store is damaged" in last
    assert "checksum mismatch" in last
    assert "let it rebuild from the other members, or restore a snapshot" in last


def test_a_damaged_log(stopped: Cluster, file_of: Callable[[str], Path]) -> None:
    path = file_of("engine/wal/*.wal")
    content = bytearray(path.read_bytes())
    content[content.index(VALUE[:3000]) + 1500] ^= 1
    path.write_bytes(content)
    line = refusal(stopped)
    assert f"log segment {path.name} is damaged at offset" in line
    assert "This is the only member, so nobody else has what was lost: restore" in line


def test_a_damaged_identity_of_the_log(stopped: Cluster, file_of: Callable[[str], Path]) -> None:
    path = file_of("engine/identity.json")
    path.write_text(path.read_text()[:20])
    line = refusal(stopped)
    assert f"{path} cannot be read" in line
    assert "must restore the file from a copy" in line


# -- requests ------------------------------------------------------------------------------------

UNARY = (
    *("KV/Range", "KV/Put", "KV/DeleteRange", "KV/Txn", "KV/Compact"),
    *("Lease/LeaseGrant", "Lease/LeaseRevoke", "Lease/LeaseTimeToLive", "Lease/LeaseLeases"),
    *("Cluster/MemberList", "Maintenance/Status", "Maintenance/Alarm", "Maintenance/HashKV"),
    *("Maintenance/Hash", "Maintenance/Defragment"),
)


def test_malformed_protobuf(served: str) -> None:
    with grpc.insecure_channel(served) as channel:
        for name in UNARY:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(f"/etcdserverpb.{name}")(b"\xff\xff\xff\xff", timeout=10)
            assert refused.value.code() is grpc.StatusCode.INTERNAL, name
            assert refused.value.details().startswith("grpc: error unmarshalling request: "), name
        for name in ("Watch/Watch", "Lease/LeaseKeepAlive"):
            call = channel.stream_stream(f"/etcdserverpb.{name}")
            with pytest.raises(grpc.RpcError) as refused:
                list(call(iter([b"\xff\xff\xff\xff"]), timeout=10))
            assert refused.value.code() is grpc.StatusCode.INTERNAL, name
            assert refused.value.details().startswith("grpc: error unmarshalling request: "), name


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"PRI * HTT",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
    ],
)
def test_bytes_that_are_no_protocol(served: str, sent: bytes) -> None:
    host, _, port = served.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    assert b"Traceback" not in answer


def test_too_large_a_request(served: str) -> None:
    large = kvctl(served, "put", "/large", stdin=b"x" * 1_600_000)
    assert (large.status, told(large)) == (1, "Error: etcdserver: request is too large")
    larger = kvctl(served, "put", "/large", stdin=b"x" * 3_000_000)
    assert larger.status == 1
    assert "larger than max" in told(larger)
    with Client(served) as client:
        with pytest.raises(EtcdError) as refused:
            client.put("/large", b"x" * 1_600_000)
        assert refused.value.status.code is Code.INVALID_ARGUMENT
        with pytest.raises(EtcdError) as refused:
            client.put("/large", b"x" * 3_000_000)
        assert refused.value.status.code is Code.RESOURCE_EXHAUSTED
        assert client.get("/large") is None


def test_an_empty_key(served: str) -> None:
    refused = kvctl(served, "put", "", "value")
    assert (refused.status, told(refused)) == (1, "Error: etcdserver: key is not provided")
    with Client(served) as client:
        for call in (client.put, client.get, client.delete):
            with pytest.raises(EtcdError) as answered:
                call("")
            assert answered.value.status.code is Code.INVALID_ARGUMENT
            assert answered.value.status.message == "etcdserver: key is not provided"


def test_revisions_that_are_not_there(cluster: Cluster, served: str) -> None:
    with Client(served) as client:
        for _ in range(3):
            revision = client.put("/r", "v").header.revision
        client.compact(revision)
    compacted = "Error: etcdserver: mvcc: required revision has been compacted"
    future = "Error: etcdserver: mvcc: required revision is a future revision"
    for endpoint in cluster.endpoints:
        old = kvctl(endpoint, "get", "/r", "--rev", str(revision - 1))
        assert (old.status, told(old)) == (1, compacted)
        ahead = kvctl(endpoint, "get", "/r", "--rev", str(revision + 1000))
        assert (ahead.status, told(ahead)) == (1, future)
    again = kvctl(served, "compaction", str(revision))
    assert (again.status, told(again)) == (1, compacted)
    watched = kvctl(served, "watch", "/r", "--rev", str(revision - 1))
    assert watched.status == 5
    assert "required revision has been compacted" in watched.stderr


# -- members that are not there ------------------------------------------------------------------


def test_all_endpoints_are_down() -> None:
    one, two = (f"127.0.0.1:{port}" for port in free_ports(2))
    both = f"{one},{two}"
    for variables, words in (("3", ("put", "/a", "1")), ("2", ("watch", "-f", "-r", "/a"))):
        done = subprocess.run(
            [*KVCTL, "--endpoints", both, *words],
            env={**os.environ, "ETCDCTL_API": variables},
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, b"")
        (line,) = done.stderr.decode().splitlines()
        assert f"{one}: connection refused; {two}: connection refused" in line
        assert "is a server running there?" in line
    with Client([one, two]) as client, pytest.raises(EndpointsUnavailable) as down:
        client.put("/a", "1")
    assert set(down.value.failures) == {one, two}


def leader_first(cluster: Cluster) -> list[Member]:
    """The members, the one that leads first."""
    with Client(cluster.endpoints) as client:

        def follows(member: Member) -> bool:
            status = client.status(member.client)
            return status.leader != status.header.member_id

        return sorted(cluster.members, key=follows)


def signal_to(member: Member, number: signal.Signals) -> None:
    """Pause a member (SIGSTOP) or let it go on (SIGCONT)."""
    assert member.process is not None
    member.process.send_signal(number)


def test_a_follower_that_does_not_answer(cluster: Cluster, served: str) -> None:
    leader, follower, other = leader_first(cluster)
    signal_to(follower, signal.SIGSTOP)
    try:
        began = time.monotonic()
        silent = kvctl(follower.client, "get", "/a", "--command-timeout=1s", "--dial-timeout=1s")
        assert silent.status == 1
        line = told(silent)
        assert follower.client in line
        assert "answer" in line
        assert "ipv4:" not in line, "gRPC's own words"
        assert time.monotonic() - began < 10
        for member in (leader, other):
            assert kvctl(member.client, "put", "/a", "1").stdout == "OK\n"
        past = kvctl(f"{follower.client},{other.client}", "get", "/a", "--dial-timeout=1s")
        assert past.stdout == "/a\n1\n"
    finally:
        signal_to(follower, signal.SIGCONT)
    wait_until_sync(lambda: kvctl(follower.client, "get", "/a").stdout == "/a\n1\n", 20)


def test_a_majority_that_is_gone_and_comes_back(cluster: Cluster, served: str) -> None:
    """The one that is left refuses what needs a quorum, in words, and serves what does not."""
    leader, follower, left = leader_first(cluster)
    with Client(left.client) as client:
        client.put("/left", "1")
        client.get("/left")
    cluster.kill(follower)
    cluster.kill(leader)

    began = time.monotonic()
    written = kvctl(left.client, "put", "/left", "2")
    assert written.status == 1
    assert "etcdserver: " in told(written) or f"no answer from {left.client}" in told(written)
    read = kvctl(left.client, "get", "/left")
    assert read.status == 1
    assert "etcdserver: " in told(read) or f"no answer from {left.client}" in told(read)
    assert time.monotonic() - began < 20
    stale = kvctl(left.client, "get", "/left", "--consistency=s")
    assert stale.stdout == "/left\n1\n"
    with pytest.raises(urllib.error.HTTPError) as health:
        urllib.request.urlopen(f"http://{left.client}/health", timeout=20)
    assert health.value.code == 503
    assert json.loads(health.value.read())["health"] == "false"
    unhealthy = kvctl(left.client, "endpoint", "health")
    assert unhealthy.status == 1
    assert f"{left.client} is unhealthy" in unhealthy.stderr

    for member in (leader, follower):
        cluster.launch(member)
    cluster.wait_ready()
    assert kvctl(left.client, "put", "/left", "3").stdout == "OK\n"
