"""Whole runs: fixed seeds, what faults do, known bugs put back, and the same trace everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from chaos.sim.disk import CrashMode, SimFile
from chaos.sim.invariants import Violation
from chaos.sim.member import Member
from chaos.sim.options import Options
from chaos.sim.runner import Summary, digests_elsewhere, run_seed, seeds_of_commit
from chaos.sim.world import World
from chaos.verdict import Verdict
from consensus.engines.native.driver import Driver
from consensus.raft import reads
from consensus.raft.core import Core
from consensus.raft.log import RaftLog
from consensus.raft.proposals import SeenProposals
from consensus.raft.ready import Ready
from consensus.types import Role

pytestmark = pytest.mark.timeout(600)  # simulations are work, not waiting: slow where CPU is
EFFECT_SEEDS = 40
PLANTED_SEEDS_MAX = 40


@pytest.mark.timeout(600)
def test_fixed_seeds_keep_every_promise_and_every_fault_has_an_effect() -> None:
    summary = Summary()
    for seed in range(EFFECT_SEEDS):
        outcome = run_seed(seed)
        assert outcome.verdict is Verdict.OK, f"seed {seed}: {outcome.error}"
        summary.add(outcome)
    assert summary.verdict is Verdict.OK
    assert summary.without_effect == []


def test_a_quiet_run_loses_nothing_and_elects_once() -> None:
    """The control: without faults everything is acknowledged, and one leader serves all along."""
    world = World(1, Options())
    world.run(30)
    assert world.counts["elections won"] == 1
    assert world.promises.acknowledged > 0.9 * world.clients.commands
    assert world.counts["messages lost"] == world.counts["crash lose_all"] == 0


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    seeds = [3, 14, 15, 92]
    here = {seed: run_seed(seed).digest for seed in seeds}
    assert here == {seed: run_seed(seed).digest for seed in seeds}
    assert here == digests_elsewhere(seeds)
    assert len(set(here.values())) == len(seeds)


def test_the_trace_hash_sees_a_single_changed_byte() -> None:
    digests = set()
    for command in (b"one", b"two"):
        world = World(1, Options())
        world.advance(2_000_000)
        leader = world.leader()
        assert leader is not None
        leader.propose([command])
        world.advance(2_000_000)
        digests.add(world.trace.digest)
    assert len(digests) == 2


def test_seeds_of_a_commit_are_its_own() -> None:
    drawn = seeds_of_commit("abc")
    first = [next(drawn) for _ in range(5)]
    again = seeds_of_commit("abc")
    assert first == [next(again) for _ in range(5)]
    assert first[0] != next(seeds_of_commit("abd"))


# -- known bugs, put back ---------------------------------------------------------------------


def _votes_forgotten(patch: pytest.MonkeyPatch) -> None:
    handle = Driver._handle

    def forgetful(self: Driver, ready: Ready) -> None:
        if ready.hard_state is not None:
            ready = attrs.evolve(ready, hard_state=attrs.evolve(ready.hard_state, voted_for=None))
        handle(self, ready)

    patch.setattr(Driver, "_handle", forgetful)


def _acknowledged_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    handle = Driver._handle

    def hasty(self: Driver, ready: Ready) -> None:
        for message in ready.messages_after_persist:
            self._send(message)
        handle(self, attrs.evolve(ready, messages_after_persist=()))

    patch.setattr(Driver, "_handle", hasty)


def _never_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimFile, "sync", lambda self: self._disk.begin_sync())


def _votes_for_any_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftLog, "is_up_to_date", lambda self, index, term: True)


def _reads_without_a_round(patch: pytest.MonkeyPatch) -> None:
    def at_once(core: Any, read: Any) -> None:
        if read.requester == core.node_id:
            core.resolve_read(read.request, core.commit_index)

    patch.setattr(reads, "_enqueue", at_once)


def _forwarded_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SeenProposals, "add", lambda self, sender, request: True)


def _read_before_the_first_commit_of_the_term(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reads, "_own_term_committed", lambda core: True)


@pytest.mark.parametrize(
    "plant",
    [
        _votes_forgotten,
        _acknowledged_before_the_sync,
        _never_synced,
        _votes_for_any_log,
        _reads_without_a_round,
        _forwarded_twice,
        _read_before_the_first_commit_of_the_term,
    ],
)
def test_a_known_bug_put_back_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(run_seed(seed).verdict is Verdict.VIOLATED for seed in range(PLANTED_SEEDS_MAX))


# -- one fault at a time ----------------------------------------------------------------------


def settled(options: Options | None = None) -> World:
    """Return a world of three with a leader and nothing wrong."""
    world = World(7, options or Options())
    world.clients.schedule()
    world.advance(3_000_000)
    assert world.leader() is not None
    return world


def cut(world: World, one: str, other: str) -> None:
    """Cut a link both ways."""
    world.network.cut([(one, other), (other, one)])


def test_a_partial_partition_does_not_unseat_the_leader() -> None:
    """A follower that has lost the leader but sees the third member cannot depose it."""
    world = settled()
    leader = world.leader()
    assert leader is not None and leader.driver is not None
    term = leader.driver.core.term
    other = next(name for name in world.members if name != leader.name)
    cut(world, leader.name, other)
    before = world.promises.acknowledged
    world.advance(10_000_000)
    assert world.leader() is leader and leader.driver.core.term == term
    assert world.promises.acknowledged > before


def test_an_isolated_follower_comes_back_without_a_new_term() -> None:
    world = settled()
    leader = world.leader()
    assert leader is not None and leader.driver is not None
    term = leader.driver.core.term
    alone = next(name for name in world.members if name != leader.name)
    for name in world.members:
        if name != alone:
            cut(world, alone, name)
    world.advance(10_000_000)
    world.network.heal()
    world.advance(3_000_000)
    assert world.leader() is leader and leader.driver.core.term == term
    assert world.members[alone].host.applied.index >= len(world.promises.canonical) - 40


def test_a_leader_without_a_quorum_steps_down_within_two_election_timeouts() -> None:
    world = settled()
    old = world.leader()
    assert old is not None and old.driver is not None
    for name in world.members:
        if name != old.name:
            cut(world, old.name, name)
    world.advance(2 * world.options.election_timeout_us + world.options.tick_us)
    assert old.driver.core.role is not Role.LEADER
    world.advance(3 * world.options.election_timeout_us)
    new = world.leader()
    assert new is not None and new is not old


def test_a_transfer_is_over_within_one_election_timeout() -> None:
    world = settled()
    leader = world.leader()
    assert leader is not None and leader.driver is not None
    target = next(name for name in world.members if name != leader.name)
    leader.driver.core.transfer_leadership(target)
    leader.pump()
    world.advance(world.options.election_timeout_us)
    new = world.leader()
    assert new is not None and new.name == target


def test_a_transfer_to_a_member_that_is_down_is_given_up() -> None:
    world = settled()
    leader = world.leader()
    assert leader is not None and leader.driver is not None
    target = next(name for name in world.members if name != leader.name)
    for name in world.members:
        if name != target:
            cut(world, target, name)
    leader.driver.core.transfer_leadership(target)
    leader.pump()
    world.advance(world.options.election_timeout_us + world.options.tick_us)
    before = world.promises.acknowledged
    world.advance(world.options.election_timeout_us)
    assert world.leader() is leader
    assert world.promises.acknowledged > before


def damaged_where_it_counts(world: World) -> tuple[Member, Member, Member]:
    """Let one follower lose what only it and the leader had, and the leader be down.

    Returns: the leader, the damaged follower, and the one that was cut off.
    """
    leader = world.leader()
    assert leader is not None
    damaged, behind = (member for member in world.reachable if member is not leader)
    for member in (leader, damaged):
        cut(world, member.name, behind.name)
    before = world.promises.highest_acknowledged
    world.advance(4_000_000)
    assert world.promises.highest_acknowledged > before + 20
    damaged.crash(CrashMode.LOSE_ALL)
    content = damaged.log_files.durable_contents()[-1]
    content.durable[4_400] ^= 1
    content.current = bytearray(content.durable)
    damaged.flipped = True
    leader.crash(CrashMode.LOSE_ALL)
    world.network.heal()
    damaged.start()
    return leader, damaged, behind


def test_a_damaged_member_does_not_help_to_elect_one_that_lacks_what_it_lost() -> None:
    world = settled()
    leader, damaged, behind = damaged_where_it_counts(world)
    assert damaged.repairing
    world.advance(10 * world.options.election_timeout_us)
    assert world.leader() is None, "without the old leader nobody can be elected safely"
    leader.start()
    world.advance(8 * world.options.election_timeout_us)
    assert not damaged.repairing
    assert world.leader() is not None
    world.clients.stop()
    world.advance(4 * world.options.election_timeout_us)
    assert damaged.host.commands == leader.host.commands == behind.host.commands


def test_the_simulator_sees_it_when_a_damaged_member_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Core, "repairing", property(lambda core: False))
    world = settled()
    with pytest.raises(Violation, match="leader completeness"):
        damaged_where_it_counts(world)
        world.advance(10 * world.options.election_timeout_us)


def test_a_leader_whose_disk_stalls_is_replaced() -> None:
    world = settled(Options(slow_sync_us=3_000_000))
    old = world.leader()
    assert old is not None
    old.slow_until = world.now + 60_000_000
    world.advance(6 * world.options.election_timeout_us)
    new = world.leader()
    assert new is not None and new is not old


def test_what_goes_round_in_circles_is_ended() -> None:
    world = World(1, Options())

    def again(_: None) -> None:
        world.at(world.now, again, None)

    again(None)
    with pytest.raises(Violation, match="a loop without end"):
        world.advance(1)
