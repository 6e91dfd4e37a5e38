"""The commands of API 2: what etcdctl prints against a real v2 store, kvctl prints on v3 data.

One real etcd serves both: etcdctl works on its v2 store, kvctl on its v3 data. Output, error and
status must be equal; only indexes (each store counts its own) are replaced, and listings are
compared sorted, since v2 lists in no order unless asked. ``DIFFERENT`` names what differs on
purpose.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.kvstore.client.servers import Server, cluster
from tests.kvstore.kvctl.running import Output, clean_environment, etcdctl, kvctl
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.interop

#: What is different on purpose: v3 data do not say it, or v2's way was a fault.
DIFFERENT = {
    "directories made by keys": "gone with their last key, unless made by mkdir",
    "setdir of a file": "refused; v2 puts an empty directory in its place, and the value is lost",
    "setdir of a directory": "sets its time to live, as its help says; etcdctl says 102",
    "watch: actions": "v3 knows writes and removals: [set] and [delete] for all of them",
    "watch: rm -r": "one [delete] for each key; v2 prints nothing",
    "ttl of a directory": "ends its marker, not the keys in it",
    "listing": "always in order",
    "wrong usage": "one line that says what is wrong, instead of the whole help",
    "-o extended and json": "v2's node structure, which v3 data do not have, is not made up",
}

SCENARIOS: dict[str, list[tuple[str, ...]]] = {
    "files": [
        ("set", "/a", "1"),
        ("set", "/a", "2"),
        ("get", "/a"),
        ("get", "a"),
        ("get", "/a/"),
        ("get", "/x"),
        ("rm", "/a"),
        ("rm", "/a"),
        ("mk", "/a", "1"),
        ("mk", "/a", "2"),
        ("update", "/a", "3"),
        ("update", "/x", "3"),
        ("get", "/a"),
        ("set", "--", "/dash", "-v"),
        ("set", "/sp ace", "v w"),
        ("get", "/sp ace"),
        ("rm", "--dir", "/a"),
        ("rm", "-r", "/dash"),
    ],
    "tutorial": [
        ("set", "/config/title", "tizi365"),
        ("set", "/config/name", "tizi365"),
        ("get", "/config/name"),
        ("set", "foo", "bar"),
        ("rm", "foo"),
        ("rm", "foo"),
    ],
    "conditions": [
        ("set", "/s", "1", "--swap-with-value", "2"),
        ("set", "/s", "1"),
        ("set", "/s", "2", "--swap-with-value", "9"),
        ("set", "/s", "2", "--swap-with-value", "1"),
        ("set", "/s", "3", "--swap-with-index", "1"),
        ("rm", "/s", "--with-value", "9"),
        ("rm", "/s", "--with-index", "1"),
        ("rm", "/s", "--with-value", "2"),
        ("rm", "/s", "--with-value", "2"),
    ],
    "directories": [
        ("mkdir", "/d"),
        ("mkdir", "/d"),
        ("ls",),
        ("ls", "/d"),
        ("ls", "-p"),
        ("set", "/d/k", "v"),
        ("set", "/d/e/f", "v2"),
        ("ls", "/"),
        ("ls", "/d"),
        ("ls", "-r"),
        ("ls", "-r", "-p"),
        ("ls", "--sort", "/d"),
        ("ls", "/x"),
        ("ls", "/d/k"),
        ("get", "/d"),
        ("get", "/d/e"),
        ("set", "/d", "x"),
        ("mk", "/d", "x"),
        ("mk", "/d/e", "x"),
        ("update", "/d", "x"),
        ("set", "/d/k/below", "x"),
        ("mk", "/d/k/below", "x"),
        ("mkdir", "/d/k/below"),
        ("mkdir", "/d/k"),
        ("rm", "/d"),
        ("rmdir", "/d"),
        ("rm", "--dir", "/d"),
        ("rm", "-r", "/d"),
        ("rm", "-r", "/d"),
        ("mkdir", "/d2"),
        ("rmdir", "/d2"),
        ("rmdir", "/d2"),
        ("setdir", "/d3"),
        ("updatedir", "/d3"),
        ("updatedir", "/nodir"),
        ("rm", "/d3"),
        ("rm", "--dir", "/d3"),
        ("ls",),
    ],
    "root": [
        ("set", "/", "v"),
        ("mk", "/", "v"),
        ("rm", "/"),
        ("rm", "-r", "/"),
        ("mkdir", "/"),
        ("ls", "/"),
    ],
    "arguments": [
        ("set",),
        ("get",),
        ("rm",),
        ("mk",),
        ("mkdir",),
        ("update",),
        ("watch",),
        ("exec-watch",),
        ("exec-watch", "/x"),
    ],
    "ttl": [
        ("set", "/t", "1", "--ttl", "100"),
        ("get", "/t"),
        ("mkdir", "/dt", "--ttl", "100"),
        ("updatedir", "/dt", "--ttl", "50"),
        ("ls", "-p"),
        ("rm", "/t"),
        ("rmdir", "/dt"),
    ],
}


@pytest.fixture
def variables(etcd: Server) -> Iterator[dict[str, str]]:
    """The environment of a v2 user, on an empty store."""
    here = {"ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": f"http://{etcd.endpoint}"}
    yield here
    for line in etcdctl(("ls", "-p"), here).stdout.decode().splitlines():
        etcdctl(("rm", "-r", line), here)
    kvctl(("del", "", "--from-key"), {**here, "ETCDCTL_API": "3"})


def comparable(command: Sequence[str], output: Output) -> tuple[list[bytes], bytes, int]:
    lines = output.stdout.splitlines()
    errors = re.sub(rb"\[\d+\]$", b"[INDEX]", output.stderr.strip())
    errors = re.sub(rb"\[(\d+) != \d+\]", rb"[\1 != INDEX]", errors)
    return (sorted(lines) if command[0] == "ls" else lines), errors, output.status


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_as_etcdctl_2(name: str, variables: dict[str, str]) -> None:
    for number, command in enumerate(SCENARIOS[name]):
        theirs = comparable(command, etcdctl(command, variables))
        ours = comparable(command, kvctl(command, variables))
        assert ours == theirs, f"step {number}: {command}"


def test_values_from_standard_input(variables: dict[str, str]) -> None:
    theirs = etcdctl(("set", "/piped"), variables, b"lines\nof text\n")
    ours = kvctl(("set", "/piped"), variables, b"lines\nof text\n")
    assert ours.stdout == theirs.stdout == b"lines\nof text\n\n"


def test_keys_in_order(variables: dict[str, str]) -> None:
    for value in "abc":
        assert kvctl(("mk", "--in-order", "/q", value), variables).stdout == f"{value}\n".encode()
    names = kvctl(("ls", "/q"), variables).stdout.splitlines()
    assert all(re.fullmatch(rb"/q/\d{20}", name) for name in names)
    assert [kvctl(("get", name.decode()), variables).stdout for name in names] == [
        b"a\n",
        b"b\n",
        b"c\n",
    ]


def test_what_api_3_sees(variables: dict[str, str]) -> None:
    """v2's commands leave plain v3 keys; a directory is a key with a slash and no value."""
    v3 = {**variables, "ETCDCTL_API": "3"}
    kvctl(("set", "config/title", "tizi365"), variables)
    kvctl(("mkdir", "/empty"), variables)
    assert kvctl(("get", "/", "--prefix"), v3).stdout == b"/config/title\ntizi365\n/empty/\n\n"
    kvctl(("put", "/from/v3", "x"), v3)
    assert kvctl(("ls", "-r", "-p"), variables).stdout.splitlines() == [
        b"/config/",
        b"/config/title",
        b"/empty/",
        b"/from/",
        b"/from/v3",
    ]


def test_commands_of_api_2_under_api_3(variables: dict[str, str]) -> None:
    """They take keys as they are typed there, as all of API 3 does."""
    v3 = {**variables, "ETCDCTL_API": "3"}
    assert kvctl(("set", "foo", "bar"), v3).stdout == b"bar\n"
    assert kvctl(("get", "foo"), v3).stdout == b"foo\nbar\n"
    assert kvctl(("rm", "foo"), v3).stdout == b"PrevNode.Value: bar\n"
    missing = kvctl(("rm", "foo"), v3)
    assert missing.status == 4
    assert re.fullmatch(rb"Error:  100: Key not found \(foo\) \[\d+\]\n", missing.stderr)
    assert kvctl(("mk", "/a/b", "1"), v3).stdout == b"1\n"
    assert kvctl(("mk", "/a/b", "1"), v3).status == 4
    assert kvctl(("ls",), v3).stdout == b"/a\n"
    wrong = kvctl(("put", "/a", "1"), variables)
    assert b"It is a command of API 3: unset ETCDCTL_API." in wrong.stderr


def test_ttl_ends_a_key(variables: dict[str, str]) -> None:
    kvctl(("set", "/short", "1", "--ttl", "1"), variables)
    assert kvctl(("get", "/short"), variables).stdout == b"1\n"
    wait_until_sync(lambda: kvctl(("get", "/short"), variables).status == 4, 15)


def start_watch(
    program: list[str], arguments: Sequence[str], variables: dict[str, str], path: Path
) -> subprocess.Popen[bytes]:
    with path.open("wb") as out:
        return subprocess.Popen(
            [*program, *arguments],
            env=clean_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.parametrize("flags", [("-f", "-r"), ("-f",), ("-r",), ()])
def test_watch_prints_what_the_tutorial_shows(
    flags: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    """The same writes are watched by etcdctl in the v2 store and by kvctl in the v3 data."""
    key = "/config" if "-r" in flags else "/config/name"
    # Both begin after a known index: then it does not matter when the watch is open.
    kvctl(("set", "/before", "1"), variables)
    v3 = {**variables, "ETCDCTL_API": "3"}
    fields = kvctl(("get", "x", "-w", "fields"), v3).stdout.decode()
    index = fields.split('"Revision" : ')[1].split("\n")[0]
    missing = etcdctl(("get", "/missing"), variables).stderr.decode()
    their_index = missing.rpartition("[")[2].rstrip("]\n")
    writes = [("set", "/config/name", "1232"), ("set", "/config/ttl", "1232")]
    writes += [("rm", "/config/ttl"), ("set", "/config/name", "two\nlines"), ("set", "/other", "x")]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    python = [sys.executable, "-m", "kvstore.cli.kvctl"]
    watching = [
        start_watch(python, ("watch", *flags, "--after-index", index, key), variables, ours)
    ]
    if "-f" not in flags:
        arguments = ("watch", *flags, "--after-index", their_index, key)
        watching.append(start_watch(["etcdctl"], arguments, variables, theirs))
    try:
        for write in writes:
            assert kvctl(write, variables).status == 0
            assert etcdctl(write, variables).status == 0
        if "-f" in flags:
            # etcdctl's own -f with --after-index repeats itself, so the text is written out here.
            recursive = (
                b"[set] /config/name\n1232\n[set] /config/ttl\n1232\n"
                b"[delete] /config/ttl\nPrevNode.Value: 1232\n[set] /config/name\ntwo\nlines\n"
            )
            expected = recursive if "-r" in flags else b"1232\ntwo\nlines\n"
            wait_until_sync(lambda: ours.read_bytes() == expected, 15, f"{ours}")
            watching[0].send_signal(signal.SIGINT)
            assert watching[0].wait(10) == 130
        else:
            assert [each.wait(15) for each in watching] == [0, 0]
            assert ours.read_bytes() == theirs.read_bytes() != b""
    finally:
        for each in watching:
            if each.poll() is None:
                each.kill()
                each.wait()


def test_exec_watch_runs_a_program(variables: dict[str, str], tmp_path: Path) -> None:
    kvctl(("set", "/w/first", "1"), variables)
    script = 'echo "$ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"'
    arguments = ("exec-watch", "-r", "--after-index", "1", "/w", "--", "sh", "-c", script)
    output = tmp_path / "output"
    python = [sys.executable, "-m", "kvstore.cli.kvctl"]
    running = start_watch(python, arguments, variables, output)
    try:
        kvctl(("rm", "/w/first"), variables)
        wait_until_sync(lambda: b"delete /w/first \n" in output.read_bytes(), 15)
        assert b"set /w/first 1\n" in output.read_bytes()
    finally:
        running.kill()
        running.wait()


def test_an_etcd_without_api_2_serves_them_all(tmp_path: Path) -> None:
    """kvctl's v2 commands need nothing of the server's v2 API."""
    with cluster("etcd", tmp_path, 1, "--enable-v2=false") as (server,):
        here = {"ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": server.endpoint}
        assert kvctl(("set", "/a", "1"), here).stdout == b"1\n"
        assert kvctl(("get", "/a"), here).stdout == b"1\n"
