"""A full quota as an operator meets it with etcdctl, on three nodes with 16 MiB each."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.clusters import Cluster, Program
from tests.kvstore.interop.conftest import Etcdctl
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.interop

QUOTA = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    flags = ("--quota-backend-bytes", str(QUOTA))
    with Cluster(Program.kvstore(), tmp_path_factory.mktemp("quota"), flags=flags) as running:
        yield running
    for member in running.members:
        assert "Traceback" not in member.log.read_text(), member.log


def test_out_of_space_and_back(etcdctl: Etcdctl) -> None:
    value = "x" * 1_000_000

    def full() -> bool:
        done = etcdctl.run("put", "/big", stdin=value)
        if done.status == 0:
            return False
        assert done.error == "Error: etcdserver: mvcc: database space exceeded"
        return True

    wait_until_sync(full, 30, "the quota is reached")
    listed = etcdctl("alarm", "list").splitlines()
    assert listed
    for line in listed:
        assert re.fullmatch(r"memberID:\d+ alarm:NOSPACE ", line), line
    statuses = etcdctl.json("endpoint", "status")
    for each in statuses:
        assert any("NOSPACE" in error for error in each["Status"]["errors"]), each
    assert len(etcdctl("get", "/big", "--print-value-only")) == len(value) + 1

    etcdctl("compaction", str(etcdctl.revision()))
    etcdctl("defrag")
    assert sorted(etcdctl("alarm", "disarm").splitlines()) == sorted(listed)
    assert etcdctl("alarm", "list") == ""
    assert etcdctl("put", "/big", "small again") == "OK\n"
