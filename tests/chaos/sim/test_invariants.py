"""Every promise is seen to be broken when it is: one hand-made observation for each."""

from __future__ import annotations

import pytest

from chaos.sim.invariants import Promises, Violation, Vote
from consensus.raft.configuration import Configuration
from consensus.types import Position, Role
from tests.chaos.sim.cores import committed, core_with


def broken(text: str) -> pytest.RaisesExc[Violation]:
    """Expect a violation whose text has this."""
    return pytest.raises(Violation, match=text)


def test_two_commands_at_one_index_break_state_machine_safety() -> None:
    promises = Promises()
    promises.applied("n1", [committed(1, b"a"), committed(2, b"b")])
    promises.applied("n2", [committed(1, b"a")])
    with broken("state machine safety"):
        promises.applied("n3", [committed(2, b"c")])


def test_one_command_with_two_terms_breaks_state_machine_safety() -> None:
    promises = Promises()
    promises.applied("n1", [committed(1, b"a", term=1)])
    with broken("state machine safety"):
        promises.applied("n2", [committed(1, b"a", term=2)])


def test_a_command_is_applied_at_one_index_only() -> None:
    promises = Promises()
    promises.applied("n1", [committed(1, b"a")])
    with broken("applied at 1 and again at 2"):
        promises.applied("n1", [committed(2, b"a")])


def test_nobody_applies_ahead_of_everybody_with_a_gap() -> None:
    promises = Promises()
    with broken("nobody has applied what is before"):
        promises.applied("n1", [committed(2, b"b")])


def test_a_dropped_command_is_never_applied() -> None:
    promises = Promises()
    promises.told_dropped(b"a")
    with broken("was told it was dropped"):
        promises.applied("n1", [committed(1, b"a")])


def test_an_applied_command_is_never_called_dropped() -> None:
    promises = Promises()
    promises.applied("n1", [committed(1, b"a")])
    with broken("was called dropped"):
        promises.told_dropped(b"a")


def test_a_read_below_what_was_acknowledged_is_stale() -> None:
    promises = Promises()
    promises.read_allowed(7, 7, "n1")
    with broken("stale read"):
        promises.read_allowed(6, 7, "n1")


def test_a_snapshot_holds_exactly_what_was_applied() -> None:
    promises = Promises()
    promises.applied("n1", [committed(1, b"a", clock_ms=5), committed(2, b"b", clock_ms=3)])
    promises.restored("n2", Position(2, 1, 5), [b"a", b"b"])
    with broken("differs from what was applied"):
        promises.restored("n2", Position(2, 1, 5), [b"a", b"x"])
    with broken("differs from what was applied"):
        promises.restored("n2", Position(2, 2, 5), [b"a", b"b"])
    with broken("clock"):
        promises.restored("n2", Position(2, 1, 3), [b"a", b"b"])
    with broken("nobody has applied"):
        promises.restored("n2", Position(3, 1, 5), [b"a", b"b", b"c"])


def test_two_leaders_of_one_term_break_election_safety_even_at_different_times() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", (1,), term=1, role=Role.LEADER))
    promises.observe_core("n1", 1, core_with("n1", (1,), term=2))
    with broken("election safety"):
        promises.observe_core("n2", 1, core_with("n2", (1,), term=1, role=Role.LEADER))


def test_a_leader_without_a_committed_entry_breaks_leader_completeness() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", (1, 1, 1), term=1, commit=3))
    promises.observe_core("n2", 1, core_with("n2", (1, 1, 1, 2), term=2, role=Role.LEADER))
    with broken("leader completeness"):
        promises.observe_core("n3", 1, core_with("n3", (1, 1), term=3, role=Role.LEADER))


def test_a_stale_leader_need_not_have_what_was_committed_later() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", (1, 3), term=3, commit=2))
    promises.observe_core("n3", 1, core_with("n3", (1, 2), term=2, role=Role.LEADER))


def test_a_leader_that_overwrites_its_log_breaks_leader_append_only() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", (1, 2, 2), term=2, role=Role.LEADER))
    with broken("append-only"):
        promises.observe_core("n1", 1, core_with("n1", (1, 2), term=2, role=Role.LEADER))


def test_a_leader_changes_members_one_change_at_a_time() -> None:
    promises = Promises()
    core = core_with("n1", (1, 1, 1), term=1, commit=1, role=Role.LEADER)
    core.configurations.append((2, Configuration.of(("n1", "n2"))))
    promises.observe_core("n1", 1, core)
    core.configurations.append((3, Configuration.of(("n1",))))
    with broken("2 uncommitted changes"):
        promises.observe_core("n1", 1, core)


def test_terms_never_go_back_not_even_over_a_restart() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", term=4))
    with broken("went back from term 4 to 3"):
        promises.observe_core("n1", 2, core_with("n1", term=3))


def test_a_commit_index_never_goes_back_within_a_life() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", (1, 1), commit=2))
    promises.observe_core("n1", 2, core_with("n1", (1, 1), commit=1))
    with broken("moved its commit index from 1 to 0"):
        promises.observe_core("n1", 2, core_with("n1", (1, 1), commit=0))


def test_committed_entries_are_the_same_by_place_and_term() -> None:
    promises = Promises()
    promises.observe_core("n1", 1, core_with("n1", (1, 1), commit=2))
    with broken("committed entries differ"):
        promises.observe_core("n2", 1, core_with("n2", (1, 2), term=2, commit=2))


def test_nothing_is_applied_that_is_not_committed() -> None:
    promises = Promises()
    core = core_with("n1", (1, 1), commit=1)
    core.applied_index = 2
    with broken("applied 2, committed 1"):
        promises.observe_core("n1", 1, core)


def test_a_vote_is_cast_once_a_term() -> None:
    promises = Promises()
    promises.observe_vote("n1", 3, "n2")
    promises.observe_vote("n1", 3, "n2")
    promises.observe_vote("n1", 4, "n3")
    with broken("voted in term 3"):
        promises.observe_vote("n1", 3, "n3")


@pytest.mark.parametrize(("term", "voted_for"), [(2, "n2"), (3, "n3"), (3, None)])
def test_term_and_vote_survive_a_restart(term: int, voted_for: str | None) -> None:
    promises = Promises()
    core = core_with("n1", term=term)
    core.voted_for = voted_for
    with broken("came back in term"):
        promises.observe_restart("n1", core, Vote(3, "n2"))


def test_a_member_that_forgot_its_vote_may_keep_it_from_others() -> None:
    core = core_with("n1", term=3)
    core.voted_for = "n1"
    Promises().observe_restart("n1", core, Vote(3, "n2"))
