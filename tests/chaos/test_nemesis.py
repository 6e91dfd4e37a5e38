"""Plans follow from the seed; expectations explain what they should; outcomes are conservative."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from typing import cast

import grpc
import pytest

from chaos.cluster.links import links_between, peer_links
from chaos.cluster.rpc import CallFailed, outcome_of
from chaos.cluster.targets import TARGETS
from chaos.expectations import DECLARATIONS, NEEDS, flag_names, not_survived, split_expected
from chaos.history.format import Outcome
from chaos.nemesis.plan import FaultKind, Role, draw_plan
from chaos.verdict import Kind, Verdict, worst
from consensus.engine import Capabilities, Fault

CODE = grpc.StatusCode


def test_the_same_seed_draws_the_same_plan() -> None:
    kinds = (FaultKind.KILL, FaultKind.PARTITION)
    first = draw_plan(kinds, 60.0, Random("5/plan"), True)
    assert first == draw_plan(kinds, 60.0, Random("5/plan"), True)
    assert first != draw_plan(kinds, 60.0, Random("6/plan"), True)


def test_faults_take_turns_and_do_not_overlap() -> None:
    plan = draw_plan((FaultKind.KILL, FaultKind.PAUSE), 120.0, Random(1), True)
    assert [fault.kind for fault in plan[:4]] == [
        FaultKind.KILL,
        FaultKind.PAUSE,
        FaultKind.KILL,
        FaultKind.PAUSE,
    ]
    for one, other in pairwise(plan):
        assert one.at_s + one.for_s <= other.at_s
    assert plan[-1].at_s + plan[-1].for_s <= 120.0
    assert {fault.role for fault in plan} == {Role.LEADER, Role.FOLLOWER}


def test_the_first_fault_strikes_the_leader_however_short_the_run() -> None:
    for seed in range(20):
        plan = draw_plan((FaultKind.KILL,), 2.0, Random(seed), True)
        assert [fault.role for fault in plan] == [Role.LEADER]


def test_modes_of_a_partition() -> None:
    both = draw_plan((FaultKind.PARTITION,), 200.0, Random(2), True)
    assert Counter(fault.mode for fault in both).keys() == {"close", "stall"}
    real = draw_plan((FaultKind.PARTITION,), 200.0, Random(2), False)
    assert {fault.mode for fault in real} == {"close"}


def test_no_fault_is_an_empty_plan() -> None:
    assert draw_plan((FaultKind.NONE,), 60.0, Random(1), True) == []


def test_kill_all_strikes_all() -> None:
    plan = draw_plan((FaultKind.KILL_ALL,), 30.0, Random(1), True)
    assert {fault.role for fault in plan} == {Role.ALL}


def test_links_between_groups_are_cut_both_ways() -> None:
    assert sorted(links_between([["n1"], ["n2", "n3"]])) == [
        "n1-to-n2",
        "n1-to-n3",
        "n2-to-n1",
        "n3-to-n1",
    ]
    assert len(peer_links(["n1", "n2", "n3", "n4", "n5"])) == 20


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
        kind: split_expected("weak", [kind], counts)
        for kind in (FaultKind.KILL, FaultKind.PARTITION, FaultKind.SLOW_LINKS, FaultKind.NONE)
    }
    assert split.pop(FaultKind.KILL) == ({Kind.LOST_WRITE: 3}, {Kind.NOT_RECOVERED: 1})
    assert set(map(str, split.values())) == {str(({}, counts))}


def test_every_target_declares_what_it_survives() -> None:
    for target in TARGETS.values():
        assert DECLARATIONS[target.engine].notes
        assert "disk corruption" in flag_names(not_survived(target.engine))


def test_every_fault_is_weighed() -> None:
    assert set(NEEDS) == set(FaultKind)


def test_the_gravest_verdict_wins() -> None:
    assert worst([]) is Verdict.OK
    assert worst([Verdict.OK, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert worst([Verdict.UNKNOWN, Verdict.INVALID]) is Verdict.INVALID
    assert worst([Verdict.INVALID, Verdict.VIOLATED, Verdict.OK]) is Verdict.VIOLATED
