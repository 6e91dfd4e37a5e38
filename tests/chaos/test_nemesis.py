"""Expectations explain what they should; outcomes are conservative."""

from __future__ import annotations

from typing import cast

import grpc
import pytest

from chaos.cluster.rpc import CallFailed, outcome_of
from chaos.cluster.targets.etcd import EtcdTarget
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.expectations import DECLARATIONS, flag_names, not_survived, split_expected
from chaos.history.format import Outcome
from chaos.nemesis.packages import PACKAGES
from chaos.verdict import Kind, Verdict, worst
from consensus.engine import Capabilities, Fault

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "outcome"),
    [
        (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", Outcome.UNKNOWN),
        (CODE.UNAVAILABLE, "Socket closed", Outcome.UNKNOWN),
        (CODE.UNAVAILABLE, "etcdserver: request timed out", Outcome.UNKNOWN),
        (CODE.UNAVAILABLE, "etcdserver: leader changed", Outcome.UNKNOWN),
        (CODE.UNKNOWN, "raft proposal dropped", Outcome.UNKNOWN),
        (CODE.INTERNAL, "stream reset", Outcome.UNKNOWN),
        (CODE.CANCELLED, "", Outcome.UNKNOWN),
        (CODE.RESOURCE_EXHAUSTED, "message too large", Outcome.UNKNOWN),
        (CODE.INVALID_ARGUMENT, "something between us", Outcome.UNKNOWN),
        (CODE.UNAVAILABLE, "failed to connect to all addresses; last error: x", Outcome.FAIL),
        (CODE.UNAVAILABLE, "etcdserver: no leader", Outcome.FAIL),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Outcome.FAIL),
        (CODE.INVALID_ARGUMENT, "etcdserver: key is not provided", Outcome.FAIL),
    ],
)
def test_only_what_is_certain_is_a_failure(
    code: grpc.StatusCode, details: str, outcome: Outcome
) -> None:
    assert outcome_of(CallFailed(code, details)) is outcome


def test_a_loss_is_expected_only_under_a_fault_that_the_engine_does_not_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weak = Capabilities(survives=Fault.PARTITION | Fault.PAUSE)
    monkeypatch.setitem(cast("dict[str, Capabilities]", DECLARATIONS), "weak", weak)
    counts = {Kind.LOST_WRITE: 3, Kind.NOT_RECOVERED: 1}
    split = {
        name: split_expected("weak", PACKAGES[name].needs, counts)
        for name in ("kill", "partition", "slow-links")
    }
    assert split.pop("kill") == ({Kind.LOST_WRITE: 3}, {Kind.NOT_RECOVERED: 1})
    assert set(map(str, split.values())) == {str(({}, counts))}
    assert split_expected("weak", Fault.NONE, counts) == ({}, counts)


def test_every_engine_declares_what_it_survives() -> None:
    targets = [KvstoreTarget("native"), KvstoreTarget("pysyncobj"), EtcdTarget()]
    assert {target.engine for target in targets} == set(DECLARATIONS)
    assert all(declared.notes for declared in DECLARATIONS.values())
    for engine, survives in (("native", True), ("pysyncobj", False), ("etcd", False)):
        assert ("disk corruption" not in flag_names(not_survived(engine))) is survives


def test_the_gravest_verdict_wins() -> None:
    assert worst([]) is Verdict.OK
    assert worst([Verdict.OK, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert worst([Verdict.UNKNOWN, Verdict.INVALID]) is Verdict.INVALID
    assert worst([Verdict.INVALID, Verdict.VIOLATED, Verdict.OK]) is Verdict.VIOLATED
