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
    ("member", "add", "late", URL, "--learner"),
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

    def __init__(self, server: Server, run: object, free: int) -> None:
        super().__init__(server, run)
        listed = self.raw(("member", "list")).stdout.decode()
        self._words = {
            "{self}": listed.split(",")[0],
            "{peer}": self._peer.decode(),
            "{free}": str(free),
        }
        self._free = str(free).encode()

    def raw(self, arguments: tuple[str, ...], stdin: bytes = b"") -> Output:
        output = super().raw(arguments, stdin)
        added = re.search(rb"Member +([0-9a-f]+) added", output.stdout)
        if added is not None:
            self._words["{member}"] = added[1].decode()
            self._names.learn_lease(added[1].decode())
        return output

    def run(self, step: tuple[str, ...]) -> tuple[bytes, bytes, int]:
        """Run one command; returns its comparable output, error line and status."""
        filled = []
        for word in step:
            for name, text in self._words.items():
                word = word.replace(name, text)
            filled.append(word)
        output, error, status = self.step(tuple(filled))
        # The order of members is that of their IDs, which differ.
        output = re.sub(
            rb'(ETCD_INITIAL_CLUSTER=")(.*)"',
            lambda found: found[1] + b",".join(sorted(found[2].split(b","))) + b'"',
            output,
        )
        # A number with fewer digits is padded with spaces.
        output = re.sub(rb"(Member|cluster|from|to) +", rb"\1 ", output)
        output = re.sub(rb'"raft_term":\d+', b'"raft_term":TERM', output)
        return output.replace(self._free, b"FREE"), error.replace(self._free, b"FREE"), status


def test_the_same_commands_everywhere(tmp_path: Path) -> None:
    for name in ("etcd", "kvstore", "kvctl"):
        (tmp_path / name).mkdir()
    with (
        cluster("etcd", tmp_path / "etcd") as (etcd,),
        cluster("kvstore", tmp_path / "kvstore") as (kvstore,),
        cluster("kvstore", tmp_path / "kvctl") as (other,),
    ):
        ports = free_ports(3)
        oracle, subject, ours = (
            Changes(etcd, etcdctl, ports[0]),
            Changes(kvstore, etcdctl, ports[1]),
            Changes(other, kvctl, ports[2]),
        )
        for number, step in enumerate(STEPS):
            expected = oracle.run(step)
            assert subject.run(step) == expected, f"kvstore, step {number}: {step}"
            assert ours.run(step) == expected, f"kvctl, step {number}: {step}"
