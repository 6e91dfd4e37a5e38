"""What kvctl does that cannot be compared line by line: errors that help, processes, signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.cli.kvctl.app import COMMANDS, V2_COMMANDS
from tests.interop import free_ports
from tests.kvstore.client.servers import Server
from tests.kvstore.kvctl.running import (
    Output,
    clean_environment,
    etcdctl,
    kvctl,
    start_kvctl,
)
from tests.waiting import wait_until_sync


@pytest.fixture
def here(etcd: Server) -> dict[str, str]:
    """The environment of a user of the server."""
    return {"ETCDCTL_ENDPOINTS": etcd.endpoint}


def dead() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def test_nobody_answers(here: dict[str, str]) -> None:
    one, two = dead(), dead()
    for command in (
        ("get", "/a"),
        ("put", "/a", "1"),
        ("watch", "/a"),
        ("lock", "m"),
        ("member", "list"),
        ("snapshot", "save", "/nowhere/x"),
    ):
        alone = kvctl((*command, "--endpoints", one), {})
        assert alone.status in (1, 5), command
        assert alone.stdout == b""
        assert b"Traceback" not in alone.stderr
        assert len(alone.stderr.splitlines()) == 1, alone.stderr
    both = kvctl(("get", "/a", "--endpoints", f"{one},{two}"), {})
    assert f"{one}: connection refused; {two}: connection refused".encode() in both.stderr
    assert b"is a server running there?" in both.stderr


@pytest.mark.interop
def test_a_dead_first_endpoint_is_passed_over(etcd: Server) -> None:
    both = f"{dead()},{etcd.endpoint}"
    assert kvctl(("put", "/over", "1", "--endpoints", both), {}).stdout == b"OK\n"
    assert kvctl(("get", "/over"), {"ETCDCTL_ENDPOINTS": both}).stdout == b"/over\n1\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("frobnicate",), 1, 'unknown command "frobnicate"'),
        (("gte", "/a"), 1, "Did you mean get"),
        (("lease", "grnat", "5"), 1, "No such command 'grnat'"),
        (("get", "/a", "--prefx"), 1, "--prefix"),
        (("get", "/a", "--limit", "x"), 1, "'x' is not a valid integer"),
        (("get", "/a", "-w", "xml"), 4, "simple, json, table or fields"),
        (("get", "/a", "--endpoints", "localhost"), 1, "for example localhost:2379"),
        (("get", "/a", "--endpoints", "ftp://h:1"), 1, "http://host:port"),
        (("get", "/a", "--endpoints", ""), 128, "--endpoints is empty"),
        (("get", "/a", "--command-timeout", "5"), 1, "for example 5s"),
        (("get", "/a", "--cacert", "/none.pem"), 1, "cannot read /none.pem"),
        (("get", "/a", "--cert", "/dev/null"), 1, "needs its key"),
        (("get", "a", "b", "c"), 128, "one argument as key"),
        (("help", "nonsense"), 1, "unknown help topic"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple[str, ...], status: int, told: str) -> None:
    output = kvctl(arguments, {"ETCDCTL_DIAL_TIMEOUT": "200ms"})
    assert output.status == status
    assert told.encode() in output.stderr
    assert output.stderr.startswith(b"Error: ")
    assert len(output.stderr.splitlines()) == 1


def test_an_unknown_api_is_refused() -> None:
    output = kvctl(("get", "/a"), {"ETCDCTL_API": "4"})
    assert (output.status, b"ETCDCTL_API=4 is not supported" in output.stderr) == (1, True)


def test_every_command_has_help_with_an_example() -> None:
    for api, commands in (("3", COMMANDS), ("2", V2_COMMANDS)):
        for name in commands:
            asked = kvctl((name, "-h"), {"ETCDCTL_API": api})
            assert asked.status == 0, (api, name)
            assert b"Usage: kvctl " in asked.stdout
            told = kvctl(("help", name), {"ETCDCTL_API": api})
            assert told.stdout.split(b"\n", 1)[1] == asked.stdout.split(b"\n", 1)[1]
            if name not in ("version", "help", "alarm", "member", "setdir", "updatedir"):
                assert b"Example" in asked.stdout, (api, name)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from kvstore.cli.kvctl.app import run\n"
        "try: run(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('grpc', 'google.protobuf', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == b"[]"


@pytest.mark.interop
def test_where_etcdctl_is_not_followed(here: dict[str, str]) -> None:
    """The deliberate differences that are not error texts."""
    v3 = {**here, "ETCDCTL_API": "3"}
    for number in "123":
        kvctl(("put", f"/n/{number}", number), here)
    assert kvctl(("get", "/n/", "--prefix", "--count-only"), here).stdout == b"3\n"
    assert kvctl(("alarm", "list", "-w", "fields"), here).stdout.startswith(b'"ClusterID" : ')
    healthy, theirs = kvctl(("endpoint", "health"), here), etcdctl(("endpoint", "health"), v3)
    assert healthy.stdout.split(b" = ")[0] == theirs.stderr.split(b" = ")[0]
    flag = kvctl(
        ("get", "/n/1", "--endpoints", here["ETCDCTL_ENDPOINTS"]), {"ETCDCTL_ENDPOINTS": dead()}
    )
    assert flag.stdout == b"/n/1\n1\n"
    lease = kvctl(
        ("txn",), here, b"lease(\"/n/1\") = \"0\"\n\nput 'a b' 'c \"d\"'\nget 'a b'\n\n\n"
    )
    assert lease.stdout == b'SUCCESS\n\nOK\n\na b\nc "d"\n'
    wrong = kvctl(("txn",), here, b'value("/n/1") ~ "x"\n\n\n\n')
    assert (
        wrong.stderr
        == b'Error: malformed comparison: value("/n/1") ~ "x" (unknown operator ~: =, !=, < or >)\n'
    )
    assert kvctl(("version",), here).stdout.endswith(b"API version: 3.6\n")


@pytest.mark.interop
def test_health_of_a_dead_endpoint(here: dict[str, str]) -> None:
    gone = dead()
    output = kvctl(("endpoint", "health", "--endpoints", f"{here['ETCDCTL_ENDPOINTS']},{gone}"), {})
    assert output.status == 1
    assert f"{gone} is unhealthy: failed to commit proposal: ".encode() in output.stderr
    assert output.stderr.endswith(b"Error: unhealthy cluster\n")
    assert b"is healthy" in output.stdout
    for command in (("endpoint", "status"), ("endpoint", "hashkv"), ("defrag",)):
        some = kvctl((*command, "--endpoints", f"{here['ETCDCTL_ENDPOINTS']},{gone}"), {})
        assert (some.status, gone.encode() in some.stderr) == (1, True)
        assert here["ETCDCTL_ENDPOINTS"].encode() in some.stdout


class Running:
    """A kvctl process whose output grows."""

    def __init__(self, arguments: tuple[str, ...], variables: dict[str, str], path: Path) -> None:
        self._path = path
        with path.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kvstore.cli.kvctl", *arguments],
                env=clean_environment(variables),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> bytes:
        return self._path.read_bytes()

    def wait_for(self, text: bytes) -> None:
        wait_until_sync(lambda: text in self.output(), 15, f"{text!r} in {self._path}")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


@pytest.fixture
def running(here: dict[str, str], tmp_path: Path) -> Iterator[object]:
    """Start kvctl processes; they are ended with the test."""
    started: list[Running] = []

    def start(*arguments: str, **variables: str) -> Running:
        started.append(
            Running(arguments, {**here, **variables}, tmp_path / f"output{len(started)}")
        )
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        assert each.process.stdin is not None
        each.process.stdin.close()
        each.process.wait()


def write(here: dict[str, str], *arguments: str) -> Output:
    output = kvctl(arguments, here)
    assert output.status == 0, output.stderr
    return output


def revision(here: dict[str, str]) -> int:
    fields = kvctl(("get", "x", "-w", "fields"), here).stdout.decode()
    return int(fields.split('"Revision" : ')[1].split("\n")[0])


@pytest.mark.interop
@pytest.mark.parametrize("form", ["simple", "json", "fields"])
@pytest.mark.parametrize("flags", [(), ("--prev-kv",)])
def test_watch_prints_what_etcdctl_prints(
    form: str, flags: tuple[str, ...], here: dict[str, str], running: object, tmp_path: Path
) -> None:
    assert callable(running)
    start = revision(here) + 1
    write(here, "put", "/w/a", "1")
    write(here, "put", "/w/a", "2\nlines")
    write(here, "del", "/w/a")
    kvctl(("txn",), here, b"\nput /w/b 1\nput /w/c last\n\n\n")
    command = ("watch", "/w/", "--prefix", "--rev", str(start), "-w", form, *flags)
    with (tmp_path / "theirs").open("wb") as out:
        theirs = subprocess.Popen(
            ["etcdctl", *command], env=clean_environment({**here, "ETCDCTL_API": "3"}), stdout=out
        )
    try:
        ours = running(*command)
        end = {"simple": b"last\n", "json": b'"Created":false}\n', "fields": b'"last"\n'}[form]
        ours.wait_for(end)
        wait_until_sync(lambda: end in (tmp_path / "theirs").read_bytes(), 15)
        assert ours.output() == (tmp_path / "theirs").read_bytes()
    finally:
        theirs.kill()
        theirs.wait()
    assert ours.interrupt() == 130


@pytest.mark.interop
def test_watch_runs_a_program_for_each_event(here: dict[str, str], running: object) -> None:
    assert callable(running)
    start = revision(here) + 1
    write(here, "put", "/x", 'a "b"\n')
    write(here, "del", "/x")
    script = (
        'printf "%s " "$ETCD_WATCH_EVENT_TYPE" "$ETCD_WATCH_KEY" "$ETCD_WATCH_VALUE"; '
        'echo "$ETCD_WATCH_REVISION"'
    )
    watching = running("watch", "/x", "--rev", str(start), "--", "sh", "-c", script)
    watching.wait_for(f'"DELETE" "/x" "" {start + 1}\n'.encode())
    assert f'"PUT" "/x" "a \\"b\\"\\n" {start + 1}\n'.encode() in watching.output()
    from_environment = running("watch", "--rev", str(start), ETCDCTL_WATCH_KEY="/x")
    from_environment.wait_for(b'PUT\n/x\na "b"\n\nDELETE\n/x\n\n')


@pytest.mark.interop
def test_watch_of_compacted_history_is_an_error(here: dict[str, str]) -> None:
    write(here, "put", "/old", "1")
    write(here, "put", "/old", "2")
    write(here, "compaction", str(revision(here)))
    output = kvctl(("watch", "/old", "--rev", "1"), here)
    theirs = etcdctl(("watch", "/old", "--rev", "1"), {**here, "ETCDCTL_API": "3"})
    assert output.stderr == theirs.stderr
    assert output.status == theirs.status == 5


@pytest.mark.interop
def test_watch_from_a_prompt(here: dict[str, str], running: object) -> None:
    assert callable(running)
    start = revision(here) + 1
    write(here, "put", "/p a", "1")
    watching = running("watch", "-i")
    stdin = watching.process.stdin
    stdin.write(f'frob\nwatch\n\nwatch "/p a" --rev {start}\n'.encode())
    stdin.flush()
    watching.wait_for(b"PUT\n/p a\n1\n")
    stdin.write(b"progress\n")
    stdin.flush()
    watching.wait_for(f"progress notify: {revision(here)}\n".encode())
    stdin.close()
    assert watching.process.wait(10) == 3
    printed = watching.output()
    assert b"Invalid command frob (only support watch)\n" in printed
    assert b"Invalid command watch (command type or key is not provided)\n" in printed
    assert b"Error: Error reading watch request line: EOF\n" in printed
    assert b"Traceback" not in printed


@pytest.mark.interop
def test_lock_admits_one_and_gives_back(here: dict[str, str], running: object) -> None:
    assert callable(running)
    first = running("lock", "m", "--ttl", "5")
    first.wait_for(b"m/")
    second = running("lock", "m", "--", "sh", "-c", 'echo "got $ETCD_LOCK_KEY $ETCD_LOCK_REV"')
    wait_until_sync(
        lambda: kvctl(("get", "m/", "--prefix", "--count-only"), here).stdout == b"2\n", 15
    )
    assert b"got" not in second.output()
    assert first.interrupt() == 0
    second.wait_for(b"got m/")
    assert second.process.wait(10) == 0
    assert kvctl(("get", "m/", "--prefix", "--count-only"), here).stdout == b"0\n"
    assert kvctl(("lease", "list"), here).stdout == b"found 0 leases\n"
    failing = kvctl(("lock", "m", "--", "sh", "-c", "exit 7"), here)
    theirs = etcdctl(("lock", "m", "--", "sh", "-c", "exit 7"), {**here, "ETCDCTL_API": "3"})
    assert (failing.stderr, failing.status) == (theirs.stderr, theirs.status)


@pytest.mark.interop
def test_election_is_followed(here: dict[str, str], running: object) -> None:
    assert callable(running)
    one = running("elect", "e", "node1")
    one.wait_for(b"node1")
    two = running("elect", "e", "node2")
    following = running("elect", "-l", "e")
    following.wait_for(b"node1")
    assert one.interrupt() == 0
    two.wait_for(b"node2")
    following.wait_for(b"node2")
    assert two.interrupt() == 0


@pytest.mark.interop
def test_keep_alive_ends_with_its_lease(here: dict[str, str], running: object) -> None:
    assert callable(running)
    lease = write(here, "lease", "grant", "2").stdout.split()[1].decode()
    renewing = running("lease", "keep-alive", lease)
    renewing.wait_for(f"lease {lease} keepalived with TTL(2)\n".encode())
    write(here, "lease", "revoke", lease)
    assert renewing.process.wait(10) == 0
    assert renewing.output().endswith(f"lease {lease} expired or revoked.\n".encode())


@pytest.mark.interop
def test_a_reader_that_leaves_is_no_error(here: dict[str, str]) -> None:
    for number in range(50):
        write(here, "put", f"/many/{number}", "x" * 5000)
    reading = start_kvctl(("get", "/many/", "--prefix"), here)
    assert reading.stdout is not None
    assert reading.stderr is not None
    assert reading.stdout.read(10) == b"/many/0\nxx"
    reading.stdout.close()
    assert b"Traceback" not in reading.stderr.read()
    reading.stderr.close()
    reading.wait(10)
