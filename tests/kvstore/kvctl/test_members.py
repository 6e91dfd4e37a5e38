"""Changes of members: etcdctl on etcd, etcdctl on kvstore and kvctl on kvstore say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop import free_ports
from tests.kvstore.client.servers import Server, cluster
from tests.kvstore.kvctl.running import Output, etcdctl, kvctl
from tests.kvstore.kvctl.test_same_as_etcdctl import Session

pytestmark = pytest.mark.interop

URL = "--peer-urls=http://127.0.0.1:{free}"
OTHER_URL = "--peer-urls=http://127.0.0.1:{other}"
"""For the second member: etcd refuses the URL of one that was added, and removed, this second."""

STEPS: tuple[tuple[str, ...], ...] = (
    ("member", "add"),
    ("member", "add", "a", "b", URL),
    ("member", "add", "late"),
    ("member", "add", "late", "--peer-urls=nonsense"),
    ("member", "add", "late", "--peer-urls=http://127.0.0.1"),
    ("member", "add", "late", "--peer-urls=http://127.0.0.1:{peer}"),
    ("member", "add", "late", "--peer-urls=http://127.0.0.1:{peer}", "--learner"),
    ("member", "promote", "{self}"),
    ("member", "remove", "{self}"),
    ("member", "remove"),
    ("member", "remove", "zz"),
    ("member", "remove", "12"),
    ("member", "update"),
    ("member", "update", "12"),
    ("member", "update", "12", URL),
    ("member", "promote"),
    ("member", "promote", "zz"),
    ("member", "promote", "12"),
    ("member", "add", "late", URL, "--learner"),
    ("member", "add", "later", "--peer-urls=http://127.0.0.1:1", "--learner"),
    ("member", "promote", "{member}"),
    ("member", "update", "{member}", "--peer-urls=http://127.0.0.1:{peer}"),
    ("member", "update", "{member}", "--peer-urls=http://127.0.0.1:1"),
    ("member", "update", "{member}", URL, "-w", "fields"),
    ("member", "remove", "{member}", "-w", "table"),
    ("member", "add", "late", OTHER_URL, "--learner"),
    ("member", "remove", "{member}", "-w", "json"),
    ("member", "remove", "{member}"),
    ("member", "list"),
    ("member", "list", "-w", "json"),
    ("move-leader",),
    ("move-leader", "zz"),
    ("move-leader", "12"),
    ("move-leader", "{self}"),
    ("move-leader", "{self}", "-w", "json"),
    ("move-leader", "{self}", "-w", "fields"),
)


class Changes(Session):
    """A session that also knows its member, and the one that it added last."""

    def __init__(self, server: Server, run: object) -> None:
        super().__init__(server, run)
        free, other = free_ports(2)
        listed = self.raw(("member", "list")).stdout.decode()
        self._words = {
            "{self}": listed.split(",")[0],
            "{peer}": self._peer.decode(),
            "{free}": str(free),
            "{other}": str(other),
        }
        self._ports = ((str(free).encode(), b"FREE"), (str(other).encode(), b"OTHER"))

    def raw(self, arguments: tuple[str, ...], stdin: bytes = b"") -> Output:
        output = super().raw(arguments, stdin)
        added = re.search(rb"Member +([0-9a-f]+) added", output.stdout)
        if added is not None:
            self._words["{member}"] = added[1].decode()
            self._names.learn_lease(added[1].decode())
        return output

    def filled(self, step: tuple[str, ...]) -> tuple[str, ...]:
        """Return a command with what the words in braces stand for here."""
        line = "\n".join(step)
        for name, text in self._words.items():
            line = line.replace(name, text)
        return tuple(line.split("\n"))

    def run(self, step: tuple[str, ...]) -> tuple[bytes, bytes, int]:
        """Run one command; returns its comparable output, error line and status."""
        output, error, status = self.step(self.filled(step))
        # The order of members is that of their IDs, which differ.
        output = re.sub(
            rb'(ETCD_INITIAL_CLUSTER=")(.*)"',
            lambda found: found[1] + b",".join(sorted(found[2].split(b","))) + b'"',
            output,
        )
        # A number with fewer digits is padded with spaces.
        output = re.sub(rb"(Member|cluster|from|to) +", rb"\1 ", output)
        output = re.sub(rb'"raft_term":\d+', b'"raft_term":TERM', output)
        for port, name in self._ports:
            output, error = output.replace(port, name), error.replace(port, name)
        return output, error, status


def test_the_same_commands_everywhere(tmp_path: Path) -> None:
    for name in ("etcd", "kvstore", "kvctl"):
        (tmp_path / name).mkdir()
    with (
        cluster("etcd", tmp_path / "etcd") as (etcd,),
        cluster("kvstore", tmp_path / "kvstore") as (kvstore,),
        cluster("kvstore", tmp_path / "kvctl") as (other,),
    ):
        oracle, subject, ours = (
            Changes(etcd, etcdctl),
            Changes(kvstore, etcdctl),
            Changes(other, kvctl),
        )
        for number, step in enumerate(STEPS):
            expected = oracle.run(step)
            assert subject.run(step) == expected, f"kvstore, step {number}: {step}"
            assert ours.run(step) == expected, f"kvctl, step {number}: {step}"


def test_a_url_is_added_again_and_again_within_a_second(tmp_path: Path) -> None:
    """Every time as a new member: etcd's IDs are the same then, and it says "member not found"."""
    with cluster("kvstore", tmp_path) as (server,):
        changes = Changes(server, kvctl)
        step, added = changes.filled(("member", "add", "late", URL, "--learner")), []
        for _ in range(12):
            output = changes.raw(step)
            found = re.search(rb"Member +([0-9a-f]+) added", output.stdout)
            assert found is not None, output
            added.append(found[1])
            again = changes.raw(step)
            assert b"Peer URLs already exists" in again.stderr, again
            changes.raw(("member", "remove", found[1].decode()))
        assert len(set(added)) == len(added)
