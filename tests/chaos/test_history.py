"""Histories: what is written is read back, damage is named, and all checks run on the file."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from random import Random

import pytest

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.durability import check_convergence, check_durability, check_explained
from chaos.checkers.linearizability import check_revisions
from chaos.checkers.pipeline import check_history
from chaos.history.format import (
    REFERENCE,
    FaultEvent,
    History,
    HistoryError,
    MemberState,
    Notice,
    Operation,
    Outcome,
    SeenEvent,
    StatusEvent,
    Watcher,
    WatchEvent,
)
from chaos.history.reader import parse_history, read_history
from chaos.history.recorder import Recorder
from chaos.verdict import Kind, Verdict
from tests.chaos.histories import Script, generate

LOW_FLOOR = LoadFloor(ok_per_s=0.0, writes=1, reads=1)


def recorded(path: Path) -> History:
    ticks = itertools.count(100, 100)
    with Recorder(path, {"seed": 5, "base_revision": 1}, clock=lambda: next(ticks)) as recorder:
        put = recorder.invoke(0, "put", "a", value="0-0")
        get = recorder.invoke(1, "get", "a")
        put.revision, put.node = 2, "n1"
        recorder.complete(put, Outcome.OK)
        get.revision, get.node = 1, "n2"
        recorder.complete(get, Outcome.OK)
        cas = recorder.invoke(0, "cas", "a", value="0-1", expected=9)
        cas.revision, cas.seen, cas.seen_revision = 2, "0-0", 2
        recorder.complete(cas, Outcome.OK)
        lost = recorder.invoke(1, "put", "b", value="1-1")
        lost.error = "timed out"
        recorder.complete(lost, Outcome.UNKNOWN)
        recorder.fault("proc.kill", "start", ["n1"], evidence="exit code -9")
        recorder.status("n1", "leader", 4)
        recorder.invoke(2, "get", "a")
        recorder.watch("n1", [WatchEvent(2, "a", "0-0"), WatchEvent(3, "b", "1-1")])
        recorder.watched("n1")
        recorder.watched("n2")
        recorder.close({"verdict": "ok"})
    return read_history(path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    history = recorded(tmp_path / "history.jsonl")
    assert history.header["seed"] == 5
    put, get, cas, lost, cut_off = history.operations
    assert (put.outcome, put.revision, put.value, put.node) == (Outcome.OK, 2, "0-0", "n1")
    assert put.start < get.start < (put.end or 0) < (get.end or 0)
    assert (get.seen, get.seen_revision, get.revision) == (None, 0, 1)
    assert (cas.applied, cas.expected, cas.seen, cas.seen_revision) == (False, 9, "0-0", 2)
    assert (lost.outcome, lost.end, lost.error) == (Outcome.UNKNOWN, None, "timed out")
    assert (cut_off.outcome, cut_off.end) == (Outcome.UNKNOWN, None)
    assert history.statuses == [StatusEvent(1100, "n1", "leader", 4)]
    assert history.watches == {
        "n1": [WatchEvent(2, "a", "0-0"), WatchEvent(3, "b", "1-1")],
        "n2": [],
    }
    assert history.faults == [
        FaultEvent(history.faults[0].t, "proc.kill", "start", ("n1",), "exit code -9")
    ]
    assert history.footer["verdict"] == "ok"


def test_watchers_states_and_json_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    seen = (SeenEvent("k", "v", 3, 2, 2, ("u", 2)), SeenEvent("l", None, 3))
    with Recorder(path, {}) as recorder:
        operation = recorder.invoke(0, "txn", "", input=[["append", "x", 1]])
        operation.output = [["append", "x", 1]]
        recorder.complete(operation, Outcome.OK)
        watching = recorder.watcher(Watcher(0, "n1", "k", True, 2, True, ("delete",), 7))
        recorder.notice(watching, Notice(0, "events", 3, seen))
        recorder.notice(watching, Notice(0, "canceled", 3, compact_revision=5))
        recorder.state(MemberState("n1", 9, "aa", 4))
        recorder.compacted(recorder.compaction(4))
        unknown = recorder.compaction(5)
    history = read_history(path)
    assert history.operations[0].input == history.operations[0].output == [["append", "x", 1]]
    (found,) = history.watchers.values()
    assert (found.node, found.key, found.prefix, found.start) == ("n1", "k", True, 2)
    assert (found.prev_kv, found.skip, found.resumes) == (True, ("delete",), 7)
    assert [notice.kind for notice in found.notices] == ["events", "canceled"]
    assert found.notices[0].events == seen
    assert found.notices[1].compact_revision == 5
    assert history.states == [MemberState("n1", 9, "aa", 4)]
    done, asked = history.compactions
    assert (done.revision, asked) == (4, unknown)
    assert done.end is not None
    assert done.end > done.start


HEADER = '{"i":0,"t":0,"e":"header","version":1}'


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "is empty"),
        (["nonsense"], "line 1: not a history line"),
        (['{"e":"invoke"}'], "line 1: the header should be the first line"),
        ([HEADER.replace("1}", "9}")], "format version 9; this program reads 1"),
        ([HEADER, HEADER], "line 2: the header should be the first line"),
        ([HEADER, '{"e":"ok","op":4}'], "operation 4 was not invoked"),
        ([HEADER, '{"e":"surprise"}'], "unknown event 'surprise'"),
        ([HEADER, '{"e":"invoke","i":1}'], "line 2: not a history line (KeyError"),
        ([HEADER, "[]"], "line 2: not a history line (TypeError"),
        ([HEADER, '{"e":"notice","w":4}'], "line 2: there is no watcher 4"),
        ([HEADER, '{"e":"compacted","of":4}'], "line 2: there is no compaction 4"),
    ],
)
def test_damage_is_named(lines: list[str], text: str) -> None:
    with pytest.raises(HistoryError, match=re.escape(text)):
        parse_history(lines)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot read"):
        read_history(tmp_path / "absent")


def history_of(script: Script, members: int = 3) -> History:
    watches = {f"n{n}": list(script.log) for n in range(1, members + 1)}
    return History({"base_revision": 1}, script.operations, watches)


def simple() -> Script:
    return Script().put((1, 2), "x", 2).put((3, 4), "y", 3).get((5, 6), "y", 3, 3)


def test_a_good_history_is_ok() -> None:
    report = check_history(history_of(simple()), LOW_FLOOR)
    assert report.verdict is Verdict.OK
    assert report.findings == []
    assert json.loads(json.dumps(report.as_json()))["lost_writes"] == 0


def test_a_lost_acknowledged_write_is_counted() -> None:
    history = history_of(simple())
    for events in history.watches.values():
        events.pop()
    report = check_history(history, LOW_FLOOR)
    assert report.verdict is Verdict.VIOLATED
    assert report.lost_writes == 1
    assert "missing on every member" in report.findings[0].text


def test_a_write_missing_on_one_member_is_named() -> None:
    history = history_of(simple())
    history.watches["n2"].pop()
    durable = check_durability(history)
    assert durable.counts == {Kind.LOST_WRITE: 1}
    assert "missing on n2" in durable.findings[0].text
    agree = check_convergence(history)
    assert agree.counts == {Kind.MEMBERS_DISAGREE: 1}


def test_members_that_disagree_are_found() -> None:
    history = history_of(simple())
    history.watches["n3"][0] = WatchEvent(2, "a", "other")
    assert check_convergence(history).counts == {Kind.MEMBERS_DISAGREE: 1}
    assert check_explained(history).counts == {Kind.UNEXPLAINED_EVENT: 1}


def hashed(*states: tuple[str, int, str, int]) -> History:
    """A history of which only the members' hashes are known: member, position, hash, compacted."""
    return History(states=[MemberState(*state) for state in states])


def test_equal_hashes_at_one_position_agree() -> None:
    history = hashed(("n1", 9, "aa", 0), ("n2", 9, "aa", 0), ("n3", 9, "aa", 0))
    assert check_convergence(history).verdict is Verdict.OK


def test_a_log_that_is_not_whole_is_no_reference() -> None:
    history = hashed(("n1", 9, "aa", 4), ("n2", 9, "aa", 0))
    short, whole = [WatchEvent(7, "a", "1")] * 3, [WatchEvent(2, "a", "0")]
    history.watches = {"n1": short, "n2": whole}
    assert history.log == whole
    history.states = history.states[:1]
    history.watches = {"n1": short}
    assert history.log is None
    history.watches = {"n1": short, "reference": whole}
    assert history.log == whole


def test_without_a_whole_log_deletions_leave_it_undecided() -> None:
    """Their revisions would seem to be missing."""
    put = Operation(1, 0, "put", "a", start=1, end=2, value="1", revision=2, outcome=Outcome.OK)
    gone = Operation(2, 0, "delete", "a", start=3, end=4, revision=3, outcome=Outcome.OK)
    again = Operation(3, 0, "put", "a", start=5, end=6, value="2", revision=4, outcome=Outcome.OK)
    history = hashed(("n1", 4, "aa", 3))
    history.operations = [put, gone, again]
    history.watches = {"n1": [WatchEvent(4, "a", "2")]}
    assert check_revisions(history).verdict is Verdict.UNKNOWN
    events = [WatchEvent(2, "a", "1"), WatchEvent(3, "a", None), WatchEvent(4, "a", "2")]
    history.watches["reference"] = events
    assert check_revisions(history).verdict is Verdict.OK


def test_different_hashes_at_one_position_disagree() -> None:
    history = hashed(("n1", 9, "aa", 0), ("n2", 9, "bb", 0), ("n3", 9, "aa", 0))
    result = check_convergence(history)
    assert result.counts == {Kind.MEMBERS_DISAGREE: 1}
    assert "n1 hashes to aa, that of n2 to bb" in result.findings[0].text


def test_hashes_of_different_positions_or_compactions_say_nothing() -> None:
    apart = hashed(("n1", 9, "aa", 0), ("n2", 8, "bb", 0), ("n3", 9, "cc", 5))
    assert check_convergence(apart).verdict is Verdict.UNKNOWN


def test_what_was_watched_and_no_member_has_any_more_is_found() -> None:
    history = history_of(simple())
    history.watches[REFERENCE] = [*history.watches["n1"], WatchEvent(4, "a", "gone")]
    assert check_convergence(history).counts == {Kind.MEMBERS_DISAGREE: 1}


def test_of_what_is_compacted_a_member_need_tell_nothing() -> None:
    history = history_of(simple())
    history.states = [MemberState("n2", 3, "aa", 2)]
    del history.watches["n2"][0]
    assert check_durability(history).verdict is Verdict.OK
    assert check_convergence(history).verdict is Verdict.OK
    history.states = [MemberState("n2", 3, "aa", 1)]
    assert check_durability(history).counts == {Kind.LOST_WRITE: 1}
    assert check_convergence(history).counts == {Kind.MEMBERS_DISAGREE: 1}


def test_without_logs_durability_is_unknown_not_ok() -> None:
    history = history_of(simple(), members=0)
    assert check_durability(history).verdict is Verdict.UNKNOWN
    assert check_history(history, LOW_FLOOR).verdict is Verdict.UNKNOWN


def test_too_little_load_is_invalid() -> None:
    report = check_history(history_of(simple()), LoadFloor(ok_per_s=0, writes=3, reads=1))
    assert report.verdict is Verdict.INVALID
    assert Kind.TOO_LITTLE_LOAD in report.counts
    assert check_history(History({"base_revision": 1}), LOW_FLOOR).verdict is Verdict.INVALID


def test_too_slow_is_invalid() -> None:
    script = Script().put((1, 2), "x", 2).get((10**11, 10**11 + 1), "x", 2, 2)
    report = check_history(history_of(script), LoadFloor(ok_per_s=1, writes=1, reads=1))
    assert report.verdict is Verdict.INVALID


def test_a_fault_without_effect_is_invalid() -> None:
    history = history_of(simple())
    history.faults.append(FaultEvent(3, "proc.kill", "effect", ("n1",), "still there", False))
    report = check_history(history, LOW_FLOOR)
    assert report.verdict is Verdict.INVALID
    assert "still there" in report.findings[0].text


def test_a_run_that_promised_faults_and_had_none_is_invalid() -> None:
    history = history_of(simple())
    history.header["faults_expected"] = True
    assert check_history(history, LOW_FLOOR).verdict is Verdict.INVALID


def test_a_cluster_that_does_not_come_back_is_a_violation() -> None:
    history = history_of(simple())
    history.faults.append(FaultEvent(9, "heal", "end", ("n1",), "no answer in 30 s", False))
    report = check_history(history, LOW_FLOOR)
    assert report.verdict is Verdict.VIOLATED
    assert Kind.NOT_RECOVERED in report.counts


@pytest.mark.parametrize("damage", ["overlap", "after unknown", "same value"])
def test_a_history_that_is_not_well_formed_is_invalid(damage: str) -> None:
    script = Script().put((1, 5), "x", 2).put((3, 9), "y", 3).get((10, 11), "y", 3, 3)
    history = history_of(script)
    if damage == "overlap":
        script.operations[1].process = 0
    elif damage == "after unknown":
        script.operations[0].outcome, script.operations[0].end = Outcome.UNKNOWN, None
        script.operations[2].process = 0
    else:
        script.operations[1].value = "x"
    report = check_history(history, LOW_FLOOR)
    assert report.verdict in (Verdict.INVALID, Verdict.VIOLATED)
    assert Kind.BROKEN_HISTORY in report.counts


def test_a_generated_history_passes_every_check() -> None:
    operations, log = generate(Random(4), 500, keys=3, clients=5, unknown=0.1)
    watches = {"n1": log, "n2": list(log)}
    history = History({"base_revision": 1}, operations, watches)
    report = check_history(history, LOW_FLOOR)
    assert report.verdict is Verdict.OK, report.findings
