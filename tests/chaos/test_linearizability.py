"""The revision-aware checker on histories that are known to be right or wrong."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.checkers.linearizability import check_linearizability
from chaos.checkers.wgl import StoreModel, check_wgl
from chaos.history.format import Operation, Outcome, WatchEvent
from chaos.verdict import Kind, Verdict
from tests.chaos.histories import Script, generate

UNKNOWN, FAIL = Outcome.UNKNOWN, Outcome.FAIL

GOOD = {
    "empty": Script(),
    "absent key": Script().get((1, 2), None, 0, 1),
    "write then read": Script().put((1, 2), "x", 2).get((3, 4), "x", 2, 2),
    "concurrent read may see the old value": Script()
    .put((1, 2), "x", 2)
    .put((3, 9), "y", 3)
    .get((4, 5), "x", 2, 2)
    .get((6, 7), "y", 3, 3),
    "other keys move the revision": Script()
    .put((1, 2), "x", 2)
    .put((3, 4), "z", 3, key="b")
    .get((5, 6), "x", 2, 3),
    "cas applied and refused": Script()
    .cas((1, 2), 0, "x", 2)
    .cas((3, 4), 2, "y", 3)
    .cas((5, 6), 2, "z", 3, applied=False, seen=("y", 3)),
    "unknown write that took effect late": Script()
    .put((1, 2), "x", 2)
    .put((3, None), "y", 3, outcome=UNKNOWN)
    .get((5, 6), "x", 2, 2)
    .get((7, 8), "y", 3, 3),
    "unknown write that never took effect": Script()
    .put((1, 2), "x", 2)
    .put((3, None), "y", outcome=UNKNOWN)
    .get((5, 6), "x", 2, 2),
    "failed write is absent": Script()
    .put((1, 2), "x", 2)
    .put((3, 4), "y", outcome=FAIL)
    .get((5, 6), "x", 2, 2),
    "touching intervals are concurrent": Script().put((1, 5), "x", 2).get((5, 6), None, 0, 1),
}

BAD: dict[str, tuple[Script, Kind]] = {
    "stale read": (
        Script().put((1, 2), "x", 2).put((3, 4), "y", 3).get((5, 6), "x", 2, 2),
        Kind.STALE_READ,
    ),
    "stale read of nothing": (
        Script().put((1, 2), "x", 2).get((5, 6), None, 0, 1),
        Kind.STALE_READ,
    ),
    "old value under a new revision": (
        Script().put((1, 2), "x", 2).put((3, 4), "y", 3).get((5, 6), "x", 2, 3),
        Kind.WRONG_READ,
    ),
    "lost update: two cas on one revision": (
        Script().put((1, 2), "x", 2).cas((3, 4), 2, "y", 3).cas((5, 6), 2, "z", 4),
        Kind.CAS_WRONGLY_APPLIED,
    ),
    "lost acknowledged write, read from another member": (
        Script()
        .put((1, 2), "x", 2)
        .put((3, 4), "y", 3, logged=False)
        .put((5, 6), "z", 3)
        .get((7, 8), "z", 3, 3),
        Kind.DUPLICATE_REVISION,
    ),
    "one revision twice": (
        Script().put((1, 9), "x", 2, logged=False).put((1, 9), "y", 2, key="b", logged=False),
        Kind.DUPLICATE_REVISION,
    ),
    "revision goes back": (
        Script().put((1, 2), "x", 3).put((3, 4), "y", 2),
        Kind.REVISION_NOT_INCREASING,
    ),
    "read from the future": (
        Script().get((1, 2), "x", 2, 2).put((3, 4), "x", 2),
        Kind.REVISION_NOT_INCREASING,
    ),
    "read at a revision of the future": (
        Script().get((1, 2), None, 0, 2).put((3, 4), "x", 2, key="b"),
        Kind.REVISION_NOT_INCREASING,
    ),
    "unknown write seen before it was sent": (
        Script().get((1, 2), "x", 2, 2).put((3, None), "x", 2, outcome=UNKNOWN),
        Kind.REVISION_NOT_INCREASING,
    ),
    "split brain: two leaders answer": (
        Script()
        .put((1, 2), "x", 2)
        .put((3, 4), "left", 3)
        .put((3, 4), "right", 3, key="b", logged=False)
        .get((5, 6), "left", 3, 3)
        .get((5, 6), "right", 3, 3, key="b"),
        Kind.DUPLICATE_REVISION,
    ),
    "cas that should have failed": (
        Script().put((1, 2), "x", 2).cas((3, 4), 0, "y", 3),
        Kind.CAS_WRONGLY_APPLIED,
    ),
    "cas that should have been applied": (
        Script().put((1, 2), "x", 2).cas((3, 4), 2, "y", 2, applied=False, seen=("x", 2)),
        Kind.CAS_WRONGLY_REFUSED,
    ),
    "cas refused with a stale read": (
        Script()
        .put((1, 2), "x", 2)
        .put((3, 4), "y", 3)
        .cas((5, 6), 9, "z", 2, applied=False, seen=("x", 2)),
        Kind.STALE_READ,
    ),
    "unknown cas applied against its condition": (
        Script()
        .put((1, 2), "x", 2)
        .cas((3, None), 0, "y", 3, outcome=UNKNOWN)
        .get((5, 6), "y", 3, 3),
        Kind.CAS_WRONGLY_APPLIED,
    ),
    "read of a value that nobody wrote": (
        Script().put((1, 2), "x", 2).get((3, 4), "ghost", 2, 2),
        Kind.READ_OF_NOTHING,
    ),
    "value under another key": (
        Script().put((1, 2), "x", 2).get((3, 4), "x", 2, 2, key="b"),
        Kind.READ_OF_NOTHING,
    ),
    "wrong modification revision": (
        Script().put((1, 2), "x", 2).put((3, 4), "z", 3, key="b").get((5, 6), "x", 3, 3),
        Kind.WRONG_READ,
    ),
    "failed write applied": (
        Script().put((1, 2), "x", 2, outcome=FAIL).get((3, 4), "x", 2, 2),
        Kind.FAILED_WRITE_APPLIED,
    ),
    "revision that belongs to nobody": (
        Script().put((1, 2), "x", 2).put((3, 4), "y", 4).get((5, 6), "y", 4, 4),
        Kind.REVISION_GAP,
    ),
    "answer beyond the end of the log": (
        Script().put((1, 2), "x", 2).get((3, 4), "x", 2, 5),
        Kind.REVISION_GAP,
    ),
    "value comes back": (
        Script()
        .put((1, 2), "x", 2)
        .put((3, 4), "y", 3)
        .get((5, 6), "y", 3, 3)
        .get((7, 8), "x", 2, 2),
        Kind.STALE_READ,
    ),
}

ONLY_WITH_LOG: dict[str, tuple[Script, Kind]] = {
    "write stands at another revision": (
        Script().put((1, 2), "x", 2, logged=False).put((3, 4), "y", 3),
        Kind.MOVED_WRITE,
    ),
    "failed write found in the log": (
        Script().put((1, 2), "x", 2).put((3, 4), "y", 3, outcome=FAIL),
        Kind.FAILED_WRITE_APPLIED,
    ),
    "acknowledged write replaced in the log": (
        Script().put((1, 2), "x", 2, logged=False),
        Kind.DUPLICATE_REVISION,
    ),
}
ONLY_WITH_LOG["write stands at another revision"][0].log = [
    WatchEvent(2, "a", "z"),
    WatchEvent(3, "a", "y"),
    WatchEvent(4, "a", "x"),
]
ONLY_WITH_LOG["acknowledged write replaced in the log"][0].log = [WatchEvent(2, "a", "z")]


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD.keys())
def test_good_histories_pass(script: Script) -> None:
    result = check_linearizability(script.operations, script.log)
    assert (result.verdict, result.findings) == (Verdict.OK, ())
    assert check_linearizability(script.operations).verdict is Verdict.OK
    assert check_wgl(script.operations, StoreModel()).verdict is Verdict.OK


@pytest.mark.parametrize(("script", "kind"), BAD.values(), ids=BAD.keys())
def test_bad_histories_are_caught(script: Script, kind: Kind) -> None:
    result = check_linearizability(script.operations, script.log)
    assert result.verdict is Verdict.VIOLATED
    assert kind in result.counts
    assert all(finding.text for finding in result.findings)


@pytest.mark.parametrize(("script", "kind"), BAD.values(), ids=BAD.keys())
def test_bad_histories_are_caught_without_a_log(script: Script, kind: Kind) -> None:
    assert check_linearizability(script.operations).verdict is not Verdict.OK


@pytest.mark.parametrize(("script", "kind"), BAD.values(), ids=BAD.keys())
def test_the_search_agrees_on_bad_histories(script: Script, kind: Kind) -> None:
    if kind is Kind.FAILED_WRITE_APPLIED:
        script = Script()
        script.get((3, 4), "x", 2, 2)
    assert check_wgl(script.operations, StoreModel()).verdict is Verdict.VIOLATED


@pytest.mark.parametrize(("script", "kind"), ONLY_WITH_LOG.values(), ids=ONLY_WITH_LOG.keys())
def test_the_log_shows_more(script: Script, kind: Kind) -> None:
    result = check_linearizability(script.operations, script.log)
    assert kind in result.counts


def test_a_hole_that_an_unknown_write_may_fill_is_undecided_without_a_log() -> None:
    script = Script().put((1, 2), "x", 2).put((1, None), "?", outcome=UNKNOWN)
    script.put((3, 4), "z", 4)
    assert check_linearizability(script.operations).verdict is Verdict.UNKNOWN


def test_findings_are_bounded_but_all_are_counted() -> None:
    script = Script().put((1, 2), "x", 2).put((3, 4), "y", 3)
    for at in range(10, 2000, 10):
        script.get((at, at + 1), "x", 2, 2)
    result = check_linearizability(script.operations, script.log)
    assert result.counts[Kind.STALE_READ] == 199
    assert len(result.findings) == 50


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), unknown=st.sampled_from([0.0, 0.2]))
def test_generated_histories_pass(seed: int, unknown: float) -> None:
    operations, log = generate(Random(seed), 200, keys=3, clients=6, unknown=unknown)
    assert check_linearizability(operations, log).verdict is Verdict.OK
    if not unknown:
        assert check_linearizability(operations).verdict is Verdict.OK


def _mutate(rng: Random, operations: list[Operation]) -> str:
    """Damage one answer so that no correct store could have given it; return what was done."""
    reads = [op for op in operations if op.f == "get" and op.seen is not None]
    writes = [op for op in operations if op.wrote]
    damage = rng.choice(("value", "revision", "swap", "flip", "duplicate"))
    if damage == "value" and reads:
        rng.choice(reads).seen = "never written"
    elif damage == "revision" and reads:
        read = rng.choice(reads)
        read.seen_revision += 1
    elif damage == "swap" and len(writes) > 1:
        one, other = rng.sample(writes, 2)
        one.revision, other.revision = other.revision, one.revision
    elif damage == "flip":
        refused = [op for op in operations if op.f == "cas" and op.outcome is Outcome.OK]
        if not refused:
            return ""
        chosen = rng.choice(refused)
        chosen.expected = (chosen.expected or 0) + 1 if chosen.applied else chosen.seen_revision
    elif damage == "duplicate" and len(writes) > 1:
        one, other = rng.sample(writes, 2)
        one.revision = other.revision
    else:
        return ""
    return damage


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_mutated_history_is_caught(seed: int) -> None:
    rng = Random(seed)
    operations, log = generate(rng, 60, keys=2, clients=4)
    damage = _mutate(rng, operations)
    expected = Verdict.VIOLATED if damage else Verdict.OK
    assert check_linearizability(operations, log).verdict is expected, damage


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), unknown=st.sampled_from([0.0, 0.15]))
def test_both_checkers_agree_on_small_histories(seed: int, unknown: float) -> None:
    """Random answers, right and wrong: what one decides the other must not contradict."""
    rng = Random(seed)
    operations, _ = generate(rng, 12, keys=2, clients=4, unknown=unknown)
    for _ in range(rng.randrange(3)):
        victim = rng.choice(operations)
        if victim.outcome is not Outcome.OK:
            continue
        field = rng.choice(("start", "end", "revision"))
        if field == "start":
            victim.start = max(0, victim.start - rng.randrange(100))
        elif field == "end":
            assert victim.end is not None
            victim.end = max(victim.start, victim.end - rng.randrange(60))
        else:
            victim.revision = max(1, victim.revision + rng.choice((-1, 1)))
    by_revision = check_linearizability(operations).verdict
    by_search = check_wgl(operations, StoreModel()).verdict
    assert by_search is not Verdict.UNKNOWN
    if by_revision is not Verdict.UNKNOWN:
        assert by_revision is by_search
    elif not unknown:
        pytest.fail("without unknown writes nothing is undecided")


def test_a_hundred_thousand_operations_take_under_a_second() -> None:
    operations, log = generate(Random(1), 100_000, keys=20, clients=50)
    began = time.process_time()
    assert check_linearizability(operations, log).verdict is Verdict.OK
    took_s = time.process_time() - began
    assert took_s < 1.0


def test_stale_read_in_a_large_history_is_found() -> None:
    operations, log = generate(Random(2), 20_000, keys=5, clients=20)
    reads = [op for op in operations if op.f == "get" and op.id > 10_000]
    early = next(op for op in operations if op.f == "get" and op.key == reads[0].key)
    reads[0].seen, reads[0].seen_revision = early.seen, early.seen_revision
    reads[0].revision = early.revision
    result = check_linearizability(operations, log)
    assert result.counts == {Kind.STALE_READ: 1}
    assert result.findings[0].operations[1] == reads[0].id
