"""kvctl prints what etcdctl 3.4 prints: the same commands, in the same order, on a real etcd each.

Standard output and exit status must be equal, and of errors the line that says what is wrong. What
differs on purpose stands in ``DIFFERENT`` by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvstore.client.servers import Server, cluster
from tests.kvstore.kvctl.running import Names, Output, etcdctl, kvctl, last_error

pytestmark = pytest.mark.interop

Step = tuple[str, ...] | tuple[bytes, tuple[str, ...]]

FORMATS = ("simple", "json", "fields", "table")

#: What is different on purpose, and why. Each has its test in test_on_its_own.py.
DIFFERENT = {
    "usage after a wrong flag": "one line and a hint, instead of the whole help",
    "unreachable endpoints": "named with their reasons, instead of 'context deadline exceeded'",
    "alarm list -w fields": "etcdctl 3.4 crashes where an answer has no header",
    "--count-only": "of 3.5; prints the number in the simple format, where 3.5 refuses",
    "get a b c": "etcdctl 3.4 ignores the third argument; 3.5 and kvctl refuse",
    "txn: lease(...) and a wrong operator": "etcdctl 3.4 crashes; kvctl compares, or says so",
    "txn: 'single quotes'": "etcdctl 3.4 cuts the text at the wrong place",
    "txn: got ...": "etcdctl adds what its scanner had read so far to 'malformed comparison'",
    "flag and variable": "etcdctl 3.4 stops when both are set; in kvctl the flag wins",
    "txn: what is wrong with an option": "added to 'invalid txn request' in brackets",
    "endpoint health": "etcdctl 3.4 prints healthy endpoints on standard error; as 3.5 on output",
    "unsupported output format": "kvctl lists those that it has",
    "lock: what remains": "etcdctl leaves the lease of an ended lock behind; kvctl revokes it",
}


def everywhere(*arguments: str) -> list[Step]:
    """Return the command in each output format."""
    return [(*arguments, "-w", form) for form in FORMATS]


def txn(text: str, *flags: str) -> Step:
    """Return a transaction."""
    return text.encode(), ("txn", *flags)


SCENARIOS: dict[str, list[Step]] = {
    "put": [
        ("put", "/a", "1"),
        ("put", "/a", 'with "quotes"\nand lines', "--prev-kv"),
        (b"from stdin\n", ("put", "/b")),
        ("put", "--", "/dash", "-value"),
        ("put", "/a", "--ignore-value"),
        ("put", "/a", "2", "--ignore-lease"),
        *everywhere("put", "/c", "<&>é", "--prev-kv"),
        ("put",),
        ("put", "/a", "1", "--lease", "zz"),
        ("put", "/a", "1", "--lease", "77"),
        ("put", "/a", "1", "--ignore-value"),
        ("put", "/none", "--ignore-value"),
        ("put", "", "1"),
    ],
    "get": [
        ("put", "/a", "1"),
        ("put", "/a", "2"),
        ("put", "/b/1", "z"),
        ("put", "/b/2", "y"),
        ("put", "/b/3", "x"),
        (b"raw\xff\x00\x7f\xc3\xa9bytes", ("put", "/bin")),
        *everywhere("get", "/", "--prefix"),
        *everywhere("get", "/b/", "--prefix", "--limit", "2"),
        *everywhere("get", "/b/", "--prefix", "--keys-only"),
        *everywhere("get", "/missing"),
        ("get", "/", "--prefix=true", "--keys-only=0", "--limit=1"),
        ("get", "/bin", "--hex"),
        ("get", "/bin", "--hex", "-w=json"),
        ("get", "/", "--prefix", "--print-value-only"),
        ("get", "/", "--prefix", "--print-value-only", "--hex"),
        ("get", "/a", "--print-value-only", "--keys-only"),
        ("get", "/a", "--rev", "2"),
        ("get", "/a", "/b/2"),
        ("get", "/b/2", "--from-key"),
        ("get", "", "--from-key", "--keys-only"),
        ("get", "", "--prefix", "--keys-only"),
        ("get", "/b/", "--prefix", "--sort-by", "VALUE"),
        ("get", "/b/", "--prefix", "--sort-by", "MODIFY", "--order", "DESCEND"),
        ("get", "/", "--prefix", "--sort-by", "VERSION", "--order", "DESCEND", "--limit", "1"),
        ("get", "/", "--prefix", "--sort-by", "create", "--order", "descend"),
        ("get", "/b/", "--prefix", "--order", "DESCEND"),
        ("get", "/b/", "--prefix", "--order", "ASCEND"),
        ("get", "/a", "--consistency", "s"),
        ("ge", "/a"),
        ("get",),
        ("get", ""),
        ("get", "/a", "/b", "--prefix"),
        ("get", "/a", "--prefix", "--from-key"),
        ("get", "/a", "--sort-by", "foo"),
        ("get", "/a", "--order", "foo"),
        ("get", "/a", "--consistency", "z"),
        ("get", "/a", "--rev", "99999"),
        ("get", "/a", "--print-value-only", "-w", "json"),
    ],
    "del": [
        *(("put", f"/d/{number}", str(number)) for number in range(9)),
        ("del", "/d/0"),
        ("del", "/d/0"),
        ("del", "/d/1", "--prev-kv"),
        ("del", "/d/2", "/d/4", "--prev-kv"),
        *everywhere("del", "/d/4", "--prev-kv"),
        ("put", "/d/4", "4"),
        ("del", "/d/4", "--prev-kv", "-w", "json"),
        ("put", "/d/4", "4"),
        ("del", "/d/4", "--prev-kv", "-w", "fields"),
        ("del", "/d/7", "--from-key"),
        ("del", "/d/", "--prefix"),
        ("del",),
        ("del", ""),
        ("del", "/a", "/b", "--prefix"),
        ("del", "/a", "--prefix", "--from-key"),
    ],
    "compaction": [
        ("put", "/a", "1"),
        ("put", "/a", "2"),
        ("compaction", "2"),
        ("compaction", "3", "--physical", "-w", "json"),
        ("compaction", "1"),
        ("compaction", "99999"),
        ("compaction", "x"),
        ("compaction",),
        ("get", "/a", "--rev", "2"),
    ],
    "txn": [
        ("put", "/b", "bin"),
        *(
            step
            for form in ("simple", "json", "fields", "table")
            for step in (
                txn('version("/t") = "0"\n\nput /t 1\nget /t\n\nget /t\nget /b\n\n', "-w", form),
                txn('version("/t") = "0"\n\n\nget /t\nget /b\ndel /t\n\n', "-w", form),
                ("del", "/t"),
            )
        ),
        txn(
            'value("/b") = "bin"\n\nput "/q r" "with \\"quote\\" \\n\\x41"\nget "/q r"\n'
            "get / --prefix --keys-only\nput /b 2 --prev-kv\ndel /b --prev-kv\n\nget /b\n\n",
            "-i",
        ),
        txn(
            'mod("/q r") > "0"\ncreate("/q r") < "1000"\nver("/q r") != "0"\nc("/q r") > "1"\n'
            'm("/q r") > "1"\nval("/q r") > "a"\n\nget / --prefix --limit=1\n\n\n'
        ),
        txn("\n\n\n"),
        txn('value("a b") = "x y"\n\n\n\n'),
        txn('foo("/b") = "x"\n\n\n\n'),
        txn("value /b = x\n\n\n\n"),
        txn('version("/b") = "x"\n\n\n\n'),
        txn("\nfoo /b\n\n\n"),
        txn("\nput /b\n\n\n"),
        txn("\nput\n\n\n"),
        txn('\nput x "a\nb"\n\n\n'),
        txn("\nput a 1\nput a 2\n\n\n"),
        txn('value("/b") = "x"\n'),
        txn("\nput a b\n"),
        ("txn", "x"),
    ],
    "lease": [
        ("lease", "grant", "100"),
        ("put", "/l", "1", "--lease", "{lease}"),
        ("get", "/l", "-w", "json"),
        *everywhere("lease", "timetolive", "{lease}"),
        *everywhere("lease", "timetolive", "{lease}", "--keys"),
        *everywhere("lease", "list"),
        *everywhere("lease", "keep-alive", "--once", "{lease}"),
        *everywhere("lease", "revoke", "{lease}"),
        *everywhere("lease", "timetolive", "{lease}"),
        *everywhere("lease", "list"),
        ("lease", "revoke", "{lease}"),
        ("lease", "keep-alive", "--once", "{lease}"),
        ("lease", "keep-alive", "{lease}"),
        ("lease", "grant", "50", "-w", "json"),
        ("lease", "grant", "50", "-w", "fields"),
        ("lease", "grant", "50", "-w", "table"),
        ("lease", "grant", "--", "-5"),
        ("lease", "grant"),
        ("lease", "grant", "x"),
        ("lease", "revoke", "zz"),
        ("lease", "timetolive"),
    ],
    "cluster": [
        ("put", "/a", "1"),
        *everywhere("member", "list"),
        *everywhere("endpoint", "health")[1:3],
        ("endpoint", "health", "--cluster", "-w", "json"),
        ("endpoint", "--cluster", "health", "-w", "fields"),
        *everywhere("alarm", "list")[:2],
        *everywhere("alarm", "disarm")[:2],
        ("alarm", "list", "-w", "table"),
        ("alarm", "list", "x"),
        ("defrag",),
        ("defrag", "--cluster"),
        ("snapshot", "save"),
        ("lock",),
        ("elect",),
        ("elect", "e"),
        ("elect", "-l", "e", "x"),
    ],
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two real etcds of one kind: one for etcdctl, one for kvctl."""
    with (
        cluster("etcd", tmp_path_factory.mktemp("one")) as (one,),
        cluster("etcd", tmp_path_factory.mktemp("two")) as (two,),
    ):
        yield one, two


class Session:
    """A sequence of commands for one of the twins."""

    def __init__(self, server: Server, run: object) -> None:
        self._run = run
        self._variables = {"ETCDCTL_ENDPOINTS": server.endpoint, "ETCDCTL_API": "3"}
        status = json.loads(self.raw(("endpoint", "status", "-w", "json")).stdout)
        header = status[0]["Status"]["header"]
        self._names = Names(server.client_port, [header["cluster_id"], header["member_id"]])
        members = json.loads(self.raw(("member", "list", "-w", "json")).stdout)
        self._peer = members["members"][0]["peerURLs"][0].rpartition(":")[2].encode()
        self._lease = "1"
        self._first_revision = header["revision"]
        for lease in self.raw(("lease", "list")).stdout.decode().split()[3:]:
            self.raw(("lease", "revoke", lease))

    def raw(self, arguments: tuple[str, ...], stdin: bytes = b"") -> Output:
        assert callable(self._run)
        output = self._run(arguments, self._variables, stdin)
        assert isinstance(output, Output)
        return output

    def step(self, step: Step) -> tuple[bytes, bytes, int]:
        """Run one command; returns its comparable output, error line and status."""
        stdin, arguments = step if isinstance(step[0], bytes) else (b"", step)
        filled = tuple(str(each).replace("{lease}", self._lease) for each in arguments)
        output = self.raw(filled, stdin)
        granted = re.search(rb"lease ([0-9a-f]{16}) granted with TTL\(\d+s\)\n", output.stdout)
        if granted is not None:
            self._lease = self._names.learn_lease(granted[1].decode())
        found = re.search(rb'"ID"(?: :|:) ?(\d+)', output.stdout)
        if filled[:2] == ("lease", "grant") and found is not None:
            self._names.learn_lease(f"{int(found[1]):016x}")
        shown = self._names.replace(output.stdout.replace(self._peer, b"PEER"))
        return shown, last_error(output.stderr), output.status


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_output_and_status(name: str, twins: tuple[Server, Server]) -> None:
    sessions = [Session(twins[0], etcdctl), Session(twins[1], kvctl)]
    for number, step in enumerate(SCENARIOS[name]):
        theirs, ours = (session.step(step) for session in sessions)
        assert ours == theirs, f"step {number}: {step}"


READS: list[tuple[str, ...]] = [
    ("get", "/same/", "--prefix"),
    *((("get", "/same/", "--prefix", "-w", form)) for form in FORMATS),
    ("get", "/same/a", "-w", "json", "--rev", "{rev}"),
    *((("member", "list", "-w", form)) for form in FORMATS),
    *((("endpoint", "status", "-w", form)) for form in FORMATS),
    *((("endpoint", "hashkv", "-w", form)) for form in FORMATS),
    ("endpoint", "hashkv", "--cluster"),
    *((("lease", "list", "-w", form)) for form in FORMATS),
]


def test_same_bytes_on_the_same_server(twins: tuple[Server, Server]) -> None:
    """Reads of one server, compared without any replacement."""
    variables = {"ETCDCTL_ENDPOINTS": twins[0].endpoint, "ETCDCTL_API": "3"}
    for key in ("/same/a", "/same/b", "/same/a"):
        assert etcdctl(("put", key, key * 3), variables).status == 0
    header = json.loads(etcdctl(("get", "x", "-w", "json"), variables).stdout)["header"]
    for command in READS:
        filled = [each.replace("{rev}", str(header["revision"] - 1)) for each in command]
        theirs, ours = etcdctl(filled, variables), kvctl(filled, variables)
        assert (ours.stdout, ours.status) == (theirs.stdout, theirs.status), command


def test_snapshots_are_equal(twins: tuple[Server, Server], tmp_path: Path) -> None:
    variables = {"ETCDCTL_ENDPOINTS": twins[0].endpoint, "ETCDCTL_API": "3"}
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    theirs = etcdctl(("snapshot", "save", str(one)), variables)
    ours = kvctl(("snapshot", "save", str(two)), variables)
    assert ours.stdout.replace(b"two.db", b"one.db") == theirs.stdout
    assert one.stat().st_size == two.stat().st_size
    status = [etcdctl(("snapshot", "status", str(path)), variables) for path in (one, two)]
    assert status[0].stdout.split(b",")[1:] == status[1].stdout.split(b",")[1:]
    assert status[1].status == 0
