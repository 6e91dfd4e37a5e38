"""The leader's clock of leases, on a simulated clock and a cluster that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consensus.errors import NotLeader, ProposalDropped, ReadFailed
from consensus.types import Applied, EngineStatus, Role
from kvstore.errors import LEADER_CHANGED
from kvstore.lease.expiry import EXPIRE_BATCH_MAX, TICK_S, LeaseExpiry
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command, LeaderRequest, LeaderResponse, LeaseRemaining
from tests.waiting import wait_until

ELECTION_S = 1.0


def status(role: Role, term: int) -> EngineStatus:
    return EngineStatus("n1", role, term, "n1", 0, 0, (), True)


@attrs.define
class Cluster:
    """The replicated half, applied at once unless the test holds it back."""

    now_s: float = 1000.0
    entry_term: int = 1
    applied: dict[int, int] = attrs.field(factory=dict)
    still_to_apply: dict[int, int] = attrs.field(factory=dict)
    proposed: list[tuple[tuple[int, ...], int]] = attrs.field(factory=list)
    propose_error: Exception | None = None
    confirm_error: Exception | None = None
    confirms: int = 0
    hold: asyncio.Event | None = None
    expiry: LeaseExpiry = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.expiry = LeaseExpiry(
            self,
            propose=self.propose,
            confirm=self.confirm,
            election_timeout_s=ELECTION_S,
            clock=lambda: self.now_s,
        )

    def leases(self) -> Iterable[tuple[int, int]]:
        return list(self.applied.items())

    def grant(self, lease_id: int, ttl_s: int) -> None:
        self.applied[lease_id] = ttl_s
        self.expiry.granted(lease_id, ttl_s)

    def revoke(self, lease_id: int) -> None:
        del self.applied[lease_id]
        self.expiry.revoked(lease_id)

    async def propose(self, command: bytes) -> object:
        expire = Command.FromString(command).lease_expire
        self.proposed.append((tuple(expire.ids), expire.term))
        if self.hold is not None:
            await self.hold.wait()
        if self.propose_error is not None:
            raise self.propose_error
        if expire.term != self.entry_term:
            return Applied(self.entry_term, 1, LEADER_CHANGED)
        for lease_id in expire.ids:
            if lease_id in self.applied:
                self.revoke(lease_id)
        return Applied(self.entry_term, 1, tuple(expire.ids))

    async def confirm(self) -> int:
        self.confirms += 1
        if self.confirm_error is not None:
            raise self.confirm_error
        for lease_id, ttl_s in self.still_to_apply.items():
            self.grant(lease_id, ttl_s)
        self.still_to_apply.clear()
        return 0

    def lead(self, term: int = 1) -> None:
        self.entry_term = term
        self.expiry.observe(status(Role.LEADER, term))

    def step_down(self, term: int) -> None:
        self.entry_term = term
        self.expiry.observe(status(Role.FOLLOWER, term))

    async def pass_time(self, seconds: float) -> None:
        """Let time pass as it does for a process that runs: tick by tick."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + TICK_S, end_s)
            await self.expiry.tick()

    async def keep_alive(self, lease_id: int) -> LeaderResponse:
        request = LeaderRequest(keep_alive=pb.LeaseKeepAliveRequest(ID=lease_id))
        return LeaderResponse.FromString(await self.expiry.answer(request.SerializeToString()))

    async def remaining(self, lease_id: int) -> LeaderResponse:
        request = LeaderRequest(lease_remaining=LeaseRemaining(id=lease_id))
        return LeaderResponse.FromString(await self.expiry.answer(request.SerializeToString()))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_a_lease_runs_out_after_its_ttl_and_not_before(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 10)
    await cluster.pass_time(9.9)
    assert cluster.proposed == []
    assert (await cluster.remaining(7)).remaining_ms in (99, 100)
    await cluster.pass_time(TICK_S)
    assert cluster.proposed == [((7,), 1)]
    assert cluster.applied == {}
    await cluster.pass_time(20)
    assert len(cluster.proposed) == 1


async def test_keepalive_gives_the_full_ttl_again(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 10)
    for _ in range(5):
        await cluster.pass_time(9)
        answer = await cluster.keep_alive(7)
        assert answer == LeaderResponse(found=True, remaining_ms=10_000, granted_ttl_s=10)
    assert cluster.proposed == []
    await cluster.pass_time(4)
    answer = await cluster.remaining(7)
    assert answer == LeaderResponse(found=True, remaining_ms=6_000, granted_ttl_s=10)
    await cluster.pass_time(7)
    assert cluster.proposed == [((7,), 1)]


async def test_unknown_leases_are_answered_as_not_found(cluster: Cluster) -> None:
    cluster.lead()
    assert await cluster.keep_alive(5) == LeaderResponse()
    assert await cluster.remaining(5) == LeaderResponse()
    cluster.grant(5, 10)
    cluster.revoke(5)
    assert await cluster.keep_alive(5) == LeaderResponse()


async def test_a_grant_that_is_still_to_be_applied_here_is_waited_for(cluster: Cluster) -> None:
    cluster.lead()
    cluster.still_to_apply[9] = 30
    assert (await cluster.keep_alive(9)).found
    cluster.confirm_error = ReadFailed("no quorum")
    with pytest.raises(ReadFailed):
        await cluster.keep_alive(10)
    assert (await cluster.keep_alive(9)).found, "a lease that is known needs no confirmation"


async def test_only_a_leader_answers(cluster: Cluster) -> None:
    cluster.grant(7, 10)
    for ask in (cluster.keep_alive, cluster.remaining):
        with pytest.raises(NotLeader):
            await ask(7)
    cluster.lead()
    assert (await cluster.keep_alive(7)).found
    cluster.step_down(2)
    with pytest.raises(NotLeader):
        await cluster.keep_alive(7)


async def test_a_new_leader_extends_and_never_shortens(cluster: Cluster) -> None:
    for lease_id, ttl_s in ((1, 5), (2, 60)):
        cluster.grant(lease_id, ttl_s)
    cluster.now_s += 1000
    cluster.lead(term=3)
    assert (await cluster.remaining(1)).remaining_ms == 6_000
    assert (await cluster.remaining(2)).remaining_ms == 61_000
    await cluster.keep_alive(1)
    assert (await cluster.remaining(1)).remaining_ms == 6_000, "a renewal takes nothing away"
    await cluster.pass_time(5.9)
    assert cluster.proposed == []
    await cluster.pass_time(TICK_S)
    assert cluster.proposed == [((1,), 3)]


async def test_a_new_term_of_the_same_leader_begins_anew(cluster: Cluster) -> None:
    cluster.lead(term=3)
    cluster.grant(1, 5)
    await cluster.pass_time(4)
    cluster.lead(term=3)
    assert (await cluster.remaining(1)).remaining_ms == 1_000, "the same term changes nothing"
    cluster.lead(term=4)
    assert (await cluster.remaining(1)).remaining_ms == 6_000
    await cluster.pass_time(7)
    assert cluster.proposed == [((1,), 4)]


async def test_stepping_down_forgets(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 5)
    cluster.step_down(2)
    await cluster.pass_time(100)
    assert cluster.proposed == []
    assert cluster.applied == {7: 5}


async def test_expiry_decided_in_an_old_term_is_refused_and_harmless(cluster: Cluster) -> None:
    cluster.lead(term=1)
    cluster.grant(7, 5)
    cluster.entry_term = 2  # deposed; this member has not heard of it
    await cluster.pass_time(7)
    assert cluster.proposed and all(term == 1 for _, term in cluster.proposed)
    assert cluster.applied == {7: 5}


async def test_nothing_is_proposed_without_confirmation(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 5)
    cluster.confirm_error = ReadFailed("cut off")
    cluster.now_s += 5
    cluster.expiry._ticked_s = cluster.now_s
    with pytest.raises(ReadFailed):
        await cluster.expiry.tick()
    assert cluster.proposed == []
    cluster.confirm_error = None
    await cluster.expiry.tick()
    assert cluster.proposed == [((7,), 1)]


async def test_a_renewal_during_confirmation_saves_nothing_that_ran_out(cluster: Cluster) -> None:
    """A lease that ran out stays out: its keepalive waits and then says that it is gone."""
    cluster.lead()
    cluster.grant(7, 5)
    cluster.hold = asyncio.Event()
    cluster.now_s += 5
    cluster.expiry._ticked_s = cluster.now_s
    ticking = asyncio.create_task(cluster.expiry.tick())
    await wait_until(lambda: bool(cluster.proposed), 5)
    renewing = asyncio.create_task(cluster.keep_alive(7))
    assert (await cluster.remaining(7)).remaining_ms == 0
    assert not renewing.done()
    cluster.hold.set()
    await ticking
    assert await renewing == LeaderResponse()


async def test_a_keepalive_that_waits_for_a_revoke_ends_with_leadership(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 5)
    cluster.now_s += 6
    renewing = asyncio.create_task(cluster.keep_alive(7))
    await asyncio.sleep(0)
    cluster.step_down(2)
    with pytest.raises(NotLeader):
        await renewing


async def test_a_failed_expiry_is_tried_again(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 5)
    cluster.propose_error = ProposalDropped("queue full")
    with pytest.raises(ProposalDropped):
        await cluster.pass_time(6)
    cluster.propose_error = None
    await cluster.expiry.tick()
    assert cluster.applied == {}


async def test_many_leases_expire_in_bounded_batches_longest_overdue_first(
    cluster: Cluster,
) -> None:
    cluster.lead()
    count = EXPIRE_BATCH_MAX * 2 + 10
    for lease_id in range(count, 0, -1):
        cluster.grant(lease_id, 5 if lease_id % 2 else 6)
    await cluster.pass_time(5)
    assert [len(ids) for ids, _ in cluster.proposed] == [EXPIRE_BATCH_MAX]
    assert all(lease_id % 2 for lease_id in cluster.proposed[0][0])
    await cluster.pass_time(3)
    assert [len(ids) for ids, _ in cluster.proposed] == [500, 5, 500, 5]
    assert sorted(i for ids, _ in cluster.proposed for i in ids) == list(range(1, count + 1))


async def test_time_in_which_the_process_stood_still_does_not_count(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 5)
    await cluster.pass_time(2)
    cluster.now_s += 60  # SIGSTOP: keepalives could not arrive either
    await cluster.expiry.tick()
    assert cluster.proposed == []
    left_ms = (await cluster.remaining(7)).remaining_ms
    assert 2_500 <= left_ms <= 3_500
    await cluster.pass_time(4)
    assert cluster.proposed == [((7,), 1)]


async def test_waiting_for_the_cluster_is_not_standing_still(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 5)
    cluster.grant(8, 20)
    cluster.now_s += 5
    cluster.expiry._ticked_s = cluster.now_s
    cluster.hold = asyncio.Event()
    ticking = asyncio.create_task(cluster.expiry.tick())
    await wait_until(lambda: bool(cluster.proposed), 5)
    cluster.now_s += 7
    cluster.hold.set()
    await ticking
    await cluster.expiry.tick()
    assert (await cluster.remaining(8)).remaining_ms == 8_000


async def test_a_restored_snapshot_rebuilds_what_a_leader_knows(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(1, 5)
    cluster.applied = {2: 8}
    cluster.expiry.reset()
    assert not (await cluster.remaining(1)).found
    assert (await cluster.remaining(2)).remaining_ms == 9_000
    cluster.step_down(2)
    cluster.expiry.reset()
    await cluster.pass_time(30)
    assert cluster.proposed == []


async def test_an_unknown_question_is_an_error(cluster: Cluster) -> None:
    cluster.lead()
    with pytest.raises(ValueError, match="unknown kind"):
        await cluster.expiry.answer(b"")


async def test_run_ticks_until_it_is_cancelled_and_survives_errors() -> None:
    cluster = Cluster()
    loop = asyncio.get_running_loop()
    cluster.expiry._clock = loop.time
    cluster.lead()
    cluster.grant(7, 0)
    cluster.propose_error = ProposalDropped("not now")
    task = asyncio.create_task(cluster.expiry.run())
    await wait_until(lambda: len(cluster.proposed) >= 1, 5)
    cluster.propose_error = None
    await wait_until(lambda: not cluster.applied, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_heap_does_not_grow_with_renewals(cluster: Cluster) -> None:
    cluster.lead()
    cluster.grant(7, 10)
    for _ in range(10_000):
        cluster.now_s += 0.001
        await cluster.keep_alive(7)
    assert len(cluster.expiry._heap) <= EXPIRE_BATCH_MAX + 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["grant", "renew", "revoke", "wait"]),
            st.integers(1, 4),
            st.integers(2, 9),
        ),
        max_size=40,
    )
)
def test_expiry_against_a_model(steps: list[tuple[str, int, int]]) -> None:
    """A lease lives exactly from its grant or last renewal until its TTL, to within a tick."""

    async def play() -> None:
        cluster = Cluster()
        cluster.lead()
        deadlines: dict[int, float] = {}
        ttls: dict[int, int] = {}
        for what, lease_id, number in steps:
            lives = lease_id in cluster.applied
            if what == "grant" and not lives:
                cluster.grant(lease_id, number)
                ttls[lease_id], deadlines[lease_id] = number, cluster.now_s + number
            elif what == "renew" and lives:
                if cluster.now_s < deadlines[lease_id]:
                    assert (await cluster.keep_alive(lease_id)).found
                    deadlines[lease_id] = cluster.now_s + ttls[lease_id]
            elif what == "revoke" and lives:
                cluster.revoke(lease_id)
            elif what == "wait":
                await cluster.pass_time(number * 0.7)
            for known, deadline_s in deadlines.items():
                if known in cluster.applied:
                    assert cluster.now_s < deadline_s + TICK_S
            for ids, _ in cluster.proposed:
                assert all(cluster.now_s >= deadlines[i] for i in ids)
            cluster.proposed.clear()

    asyncio.run(play())
