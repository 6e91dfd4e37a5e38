"""Each class of fault has an effect that the members themselves see, and heals.

The members are pingers (``pinger.py``): real processes, every link through toxid, each with a disk
that forgets, where FUSE is there. One cluster serves all tests; each leaves it whole. Members that
come and go are those of kvstore on the native engine: a pinger knows no groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.checkers.membership import LISTED, REMOVED
from chaos.cluster.cluster import Cluster, ClusterOptions
from chaos.cluster.membership import listed
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.departed import look_at_members
from chaos.history.recorder import Recorder
from chaos.lossyfs.disk import why_not
from chaos.nemesis.vocabulary import FAULT_CLASSES, Want
from consensus.failpoints import EXIT_CODE
from tests.chaos.pinger import EXIT_DAMAGED, EXIT_IO_ERROR
from tests.chaos.pinging import PATIENCE_S, PingTarget, inject, seen, settled, told, total
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("chaos-faults")

ALL = ["n1", "n2", "n3"]


@pytest.fixture(scope="module")
def pingers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    wants = frozenset({Want.CLOCK})
    if not why_not():
        wants |= {Want.LOSSY_DISK}
    directory = tmp_path_factory.mktemp("pingers")
    cluster = Cluster(PingTarget(), directory, ClusterOptions(seed=5), wants)
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
async def cluster(pingers: Cluster) -> AsyncIterator[Cluster]:
    await settled(pingers)
    yield pingers
    await pingers.mend()  # so that a test that failed leaves it whole too


@pytest.fixture
def disks(cluster: Cluster) -> Cluster:
    if not cluster.disks:
        pytest.skip(why_not())
    return cluster


async def serving(cluster: Cluster, members: list[str]) -> None:
    """Wait until these members serve."""

    async def serve() -> bool:
        return all([await cluster.serves(member) for member in members])

    await wait_until(serve, PATIENCE_S, f"{members} serve")


async def hears(cluster: Cluster, member: str, to: str) -> None:
    """Wait until a member has just heard another one."""
    await wait_until(lambda: _not(deaf(cluster, member, to)), PATIENCE_S, f"{member} hears {to}")


async def deaf(cluster: Cluster, member: str, to: str) -> bool:
    """Whether a member has heard nothing of another one for a while."""
    answer = await told(cluster, member)
    return bool(answer) and answer["hears"][to]["age_s"] > 0.5


# -- links ------------------------------------------------------------------------------------


async def test_isolated_one_stops_to_serve_until_it_is_healed(cluster: Cluster) -> None:
    for mode in ("close", "stall"):
        fault = inject(cluster, ["n2"], "net.partition", mode=mode)
        await fault.strike()
        assert await seen(fault) == "n2 did not serve a linearizable read"
        await serving(cluster, ["n1", "n3"])
        await fault.mend()
        await settled(cluster)


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_one_way(cluster: Cluster, direction: str) -> None:
    fault = inject(cluster, ["n2"], "net.partition", direction=direction)
    await fault.strike()
    assert "bytes were held back" in await seen(fault)
    cut, whole = (("n2", "n1"), ("n1", "n2")) if direction == "in" else (("n1", "n2"), ("n2", "n1"))
    await wait_until(lambda: deaf(cluster, *cut), PATIENCE_S)
    await hears(cluster, *whole)
    await fault.mend()
    await settled(cluster)


async def test_partial_cuts_one_pair_and_no_other(cluster: Cluster) -> None:
    fault = inject(cluster, ["n2"], "net.partition", shape="partial")
    await fault.strike()
    assert "are refused" in await seen(fault)

    async def cut() -> list[str]:
        return [other for other in ("n1", "n3") if await deaf(cluster, "n2", other)]

    await wait_until(lambda: _is(cut(), 1), PATIENCE_S)
    await hears(cluster, "n1", "n3")
    await serving(cluster, ALL)
    await fault.mend()
    await settled(cluster)


async def _is(found: Any, count: int) -> bool:
    return len(await found) == count


async def test_a_bridge_serves_and_so_do_both_sides(cluster: Cluster) -> None:
    fault = inject(cluster, ALL, "net.partition", shape="bridge")
    await fault.strike()
    assert "are refused" in await seen(fault)

    async def cut() -> list[tuple[str, str]]:
        pairs = [(one, other) for one in ALL for other in ALL if one != other]
        return [pair for pair in pairs if await deaf(cluster, *pair)]

    await wait_until(lambda: _is(cut(), 2), PATIENCE_S)
    await serving(cluster, ALL)
    await fault.mend()
    await settled(cluster)


async def test_in_a_ring_each_hears_one_other(cluster: Cluster) -> None:
    fault = inject(cluster, ALL, "net.partition", shape="majorities-ring")
    await fault.strike()
    assert "bytes were held back" in await seen(fault)

    async def heard(member: str) -> list[str]:
        return [o for o in ALL if o != member and not await deaf(cluster, member, o)]

    for member in ALL:
        await wait_until(lambda member=member: _is(heard(member), 1), PATIENCE_S)  # type: ignore[misc]
    await fault.mend()
    await settled(cluster)


async def test_clients_only(cluster: Cluster) -> None:
    fault = inject(cluster, ["n3"], "net.partition", shape="clients")
    await fault.strike()
    assert "client-to-n3 are refused" in await seen(fault)
    await serving(cluster, ALL)
    await fault.mend()
    host, _, port = cluster.client_addresses["n3"].rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()


async def test_stall_bursts_at_the_end(cluster: Cluster) -> None:
    before = await total(cluster, "connections")
    fault = inject(cluster, ["n1"], "net.stall")
    await fault.strike()
    assert "bytes were held back" in await seen(fault)
    await wait_until(lambda: deaf(cluster, "n1", "n2"), PATIENCE_S)
    gaps = await total(cluster, "gaps")
    await fault.mend()
    await settled(cluster)
    assert await total(cluster, "gaps") == gaps, "what was held came whole"
    assert await total(cluster, "connections") == before


async def test_flapping_links_drop_and_come_back(cluster: Cluster) -> None:
    before = await total(cluster, "connections")
    fault = inject(cluster, ["n1"], "net.flap", every_s=0.1)
    await fault.strike()
    assert "and again" in await seen(fault)
    await wait_until(lambda: _grown(cluster, "connections", before + 3), PATIENCE_S)
    await fault.mend()
    await settled(cluster)


async def _grown(cluster: Cluster, count: str, beyond: int) -> bool:
    return await total(cluster, count) > beyond


EFFECTS = {
    "net.limit": ({"bytes": 5_000}, "connections"),
    "net.reset": ({"after_ms": 50}, "connections"),
    "net.swallow": ({}, "connections"),
    "net.drop": ({"rate": 0.3}, "gaps"),
    "net.duplicate": ({"rate": 0.3, "late": 3}, "repeats"),
    "net.reorder": ({"rate": 0.3, "late": 3}, "late"),
    "net.corrupt": ({"rate": 0.2}, "damaged"),
}


@pytest.mark.parametrize("kind", sorted(EFFECTS))
async def test_toxics_that_members_count(cluster: Cluster, kind: str) -> None:
    options, count = EFFECTS[kind]
    before = await total(cluster, count)
    fault = inject(cluster, ALL, kind, **options)
    await fault.strike()
    assert f"{kind} struck" in await seen(fault)
    if kind not in ("net.swallow", "net.reset"):  # those are seen when they end
        await wait_until(lambda: _grown(cluster, count, before), PATIENCE_S)
    await fault.mend()
    await wait_until(lambda: _grown(cluster, count, before), PATIENCE_S)
    await settled(cluster)


SLOW = {
    "net.latency": {"delay_ms": 800, "jitter_ms": 100},
    "net.bandwidth": {"rate_kb": 10},
    "net.slicer": {"size": 100, "delay_us": 50_000},
    "net.loss": {"rate": 0.9, "resend_ms": 300},
}


@pytest.mark.parametrize("kind", sorted(SLOW))
async def test_toxics_that_delay(cluster: Cluster, kind: str) -> None:
    fault = inject(cluster, ALL, kind, **SLOW[kind])
    await fault.strike()
    if kind != "net.latency":  # a pinger's answer does not wait for the others
        assert f"{kind} struck" in await seen(fault)

    async def slow() -> bool:
        answer = await told(cluster, "n1")
        return bool(answer) and answer["hears"]["n2"]["delay_s"] > 0.25

    await wait_until(slow, PATIENCE_S)
    await fault.mend()
    await settled(cluster)


# -- processes --------------------------------------------------------------------------------


async def pids(cluster: Cluster) -> dict[str, int]:
    return {member: (await told(cluster, member)).get("pid", 0) for member in ALL}


async def test_kill_and_start(cluster: Cluster) -> None:
    before = await pids(cluster)
    fault = inject(cluster, ["n1"], "proc.kill")
    await fault.strike()
    assert await seen(fault) == "n1 did not serve a linearizable read, exit code -9"
    await serving(cluster, ["n2", "n3"])
    await fault.mend()
    await settled(cluster)
    after = await pids(cluster)
    assert {member for member in ALL if before[member] != after[member]} == {"n1"}


async def test_a_majority_that_is_killed_takes_all(cluster: Cluster) -> None:
    fault = inject(cluster, ["n1", "n3"], "proc.kill")
    await fault.strike()
    await seen(fault)
    await wait_until(lambda: _not(cluster.serves("n2")), PATIENCE_S)
    await fault.mend()
    await settled(cluster)


async def _not(answer: Any) -> bool:
    return not await answer


async def test_pause_and_go_on(cluster: Cluster) -> None:
    before = await pids(cluster)
    fault = inject(cluster, ["n2"], "proc.pause")
    await fault.strike()
    assert await seen(fault) == "n2 did not serve a linearizable read"
    assert cluster.processes["n2"].state() == "T"
    await fault.mend()
    await settled(cluster)
    assert await pids(cluster) == before


async def test_starved_in_turns(cluster: Cluster) -> None:
    fault = inject(cluster, ["n2"], "proc.starve", run_ms=10, stop_ms=40)
    await fault.strike()
    assert "was stopped and let run" in await seen(fault)
    await fault.mend()
    assert not cluster.processes["n2"].paused
    await settled(cluster)


async def test_restart_loop(cluster: Cluster) -> None:
    starts = cluster.processes["n3"].starts
    fault = inject(cluster, ["n3"], "proc.restart_loop", every_s=0.1)
    await fault.strike()
    assert "n3 was killed" in await seen(fault)
    await fault.mend()
    await settled(cluster)
    assert cluster.processes["n3"].starts >= starts + 2


async def test_rolling_restart(cluster: Cluster) -> None:
    before = await pids(cluster)
    fault = inject(cluster, ALL, "proc.rolling_restart", graceful=True)
    await fault.strike()
    assert "ended and started again" in await seen(fault)
    await fault.mend()
    await settled(cluster)
    after = await pids(cluster)
    assert all(before[member] != after[member] for member in ALL)


@pytest.mark.parametrize(
    ("point", "action", "code"),
    [
        ("send.before", "crash", EXIT_CODE),
        ("wal.before_sync", "error", EXIT_IO_ERROR),
        ("send.before", "delay", None),
    ],
)
async def test_failpoints(cluster: Cluster, point: str, action: str, code: int | None) -> None:
    options = {"point": point, "action": action, "nth": 3, "delay_ms": 50}
    fault = inject(cluster, ["n2"], "proc.failpoint", **options)
    await fault.strike()
    assert f"n2: failpoint {point}: {action}" in await seen(fault)
    process = cluster.processes["n2"]
    if code is not None:
        await wait_until(lambda: process.exit_code == code, PATIENCE_S)
    await fault.mend()
    await settled(cluster)


async def test_faults_of_one_member_end_one_by_one(cluster: Cluster) -> None:
    """Killed twice and cut off twice: it is back when the last of each has ended."""
    kills = [inject(cluster, ["n1"], "proc.kill") for _ in range(2)]
    cuts = [inject(cluster, ["n1"], "net.partition") for _ in range(2)]
    for fault in (*kills, *cuts):
        await fault.strike()
    await kills[0].mend()
    assert not cluster.processes["n1"].running
    await kills[1].mend()
    assert cluster.processes["n1"].running
    await cuts[0].mend()
    assert await seen(cuts[1]) == "n1 did not serve a linearizable read"
    await cuts[1].mend()
    await settled(cluster)


# -- clocks -----------------------------------------------------------------------------------


async def off_by_ms(cluster: Cluster, member: str) -> int:
    here, there = [(await told(cluster, name))["clock_ms"] for name in ("n3", member)]
    return int(there - here)


async def test_a_skewed_clock_is_right_again(cluster: Cluster) -> None:
    fault = inject(cluster, ["n1"], "clock.skew", by_ms=-3_600_000)
    await off_by_ms(cluster, "n1")
    await fault.strike()
    assert abs(await off_by_ms(cluster, "n1") + 3_600_000) < 600_000
    assert "wrong by -3600 s" in await seen(fault)
    await fault.mend()
    assert abs(await off_by_ms(cluster, "n1")) < 600_000


async def test_a_clock_that_jumps_to_and_fro(cluster: Cluster) -> None:
    fault = inject(cluster, ["n1"], "clock.strobe", by_ms=3_600_000, every_ms=20)
    await fault.strike()
    found: set[bool] = set()

    async def both() -> bool:
        found.add(await off_by_ms(cluster, "n1") > 1_800_000)
        return len(found) == 2

    await wait_until(both, PATIENCE_S)
    assert "wrong by 3600 s" in await seen(fault)
    await fault.mend()
    assert abs(await off_by_ms(cluster, "n1")) < 600_000


# -- disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", ["all", "torn", "some"])
async def test_power_loss_forgets_what_was_not_synced(disks: Cluster, leaves: str) -> None:
    cluster = disks
    before = (await told(cluster, "n2"))["count"]
    await wait_until(lambda: _written(cluster, "n2", before["unsynced"] + 5), PATIENCE_S)
    fault = inject(cluster, ["n2"], "disk.power_loss", leaves=leaves)
    await fault.strike()
    assert "unsynced changes lost: n2" in await seen(fault)
    await fault.mend()
    if leaves == "some":  # holes: the pinger finds them, and that is the effect
        process = cluster.processes["n2"]
        await wait_until(lambda: _back_or(cluster, process.exit_code == EXIT_DAMAGED), PATIENCE_S)
        (cluster.data_directory("n2") / "unsynced").unlink()
        await cluster.restart(["n2"])
    await settled(cluster)
    found = (await told(cluster, "n2"))["found"]
    assert found["synced"] >= before["synced"], "synced records are there"
    if leaves == "all":
        assert found["unsynced"] == 0


async def _written(cluster: Cluster, member: str, count: int) -> bool:
    return bool((await told(cluster, member))["count"]["unsynced"] > count)


async def _back_or(cluster: Cluster, ended: bool) -> bool:
    return ended or await cluster.serves("n2")


async def test_a_sync_that_fails_stops_the_member_and_it_starts_again(disks: Cluster) -> None:
    fault = inject(disks, ["n2"], "disk.sync_error")
    await fault.strike()
    assert "the disk of n2: 1 sync errors" in await seen(fault)
    await wait_until(lambda: disks.processes["n2"].exit_code == EXIT_IO_ERROR, PATIENCE_S)
    await fault.mend()
    await settled(disks)


async def test_a_read_that_fails(disks: Cluster) -> None:
    fault = inject(disks, ["n2"], "disk.read_error", count=50)
    await fault.strike()
    assert "read errors" in await seen(fault)
    await wait_until(lambda: not disks.processes["n2"].running, PATIENCE_S)
    await fault.mend()
    await settled(disks)


async def test_a_full_disk(disks: Cluster) -> None:
    fault = inject(disks, ["n2"], "disk.full")
    await fault.strike()
    assert "refused for space" in await seen(fault)
    await wait_until(lambda: disks.processes["n2"].exit_code == EXIT_IO_ERROR, PATIENCE_S)
    await fault.mend()
    await settled(disks)


@pytest.mark.parametrize("kind", ["disk.stall", "disk.slow"])
async def test_syncs_that_take_long(disks: Cluster, kind: str) -> None:
    options = {} if kind == "disk.stall" else {"delay_ms": 700}
    before = await pids(disks)
    fault = inject(disks, ["n2"], kind, **options)
    await fault.strike()
    assert f"1 {kind.removeprefix('disk.').replace('stall', 'stalled')} syncs" in await seen(fault)
    await wait_until(lambda: deaf(disks, "n1", "n2"), PATIENCE_S)
    await asyncio.gather(*(asyncio.to_thread(disks.disks["n2"].heal) for _ in range(1)))
    await fault.mend()
    await settled(disks)
    if kind == "disk.slow":
        assert (await pids(disks))["n1"] == before["n1"]


async def test_flipped_bits_are_put_back_for_a_member_that_saw_them(cluster: Cluster) -> None:
    await wait_until(lambda: _written(cluster, "n2", 5), PATIENCE_S)
    before = (await told(cluster, "n2"))["count"]["synced"]
    fault = inject(cluster, ["n2"], "disk.bit_flip", bits=3)
    await fault.strike()
    evidence = await seen(fault)
    assert "3 bits of n2's wal/synced were flipped" in evidence
    assert f"it ended with exit code {EXIT_DAMAGED}: record" in evidence
    await fault.mend()
    await settled(cluster)
    assert (await told(cluster, "n2"))["found"]["synced"] >= before


async def test_a_file_that_was_cut(cluster: Cluster) -> None:
    await wait_until(lambda: _written(cluster, "n2", 20), PATIENCE_S)
    fault = inject(cluster, ["n2"], "disk.truncate", bytes=48)
    await fault.strike()
    evidence = await seen(fault)
    assert "n2's wal/synced was cut from" in evidence
    assert evidence.endswith("it serves"), "a pinger cannot know what it had"
    kept = int(evidence.rpartition(" to ")[2].split()[0])
    assert (await told(cluster, "n2"))["found"]["synced"] == kept // 12
    await fault.mend()
    await settled(cluster)


async def test_a_wiped_disk_comes_back(cluster: Cluster) -> None:
    before = (await told(cluster, "n2"))["count"]["synced"]
    fault = inject(cluster, ["n2"], "disk.wipe")
    await fault.strike()
    assert "its data are gone" in await seen(fault)
    assert list(cluster.data_directory("n2").iterdir()) == []
    await fault.mend()
    await settled(cluster)
    assert (await told(cluster, "n2"))["found"]["synced"] >= before


# -- members ----------------------------------------------------------------------------------


async def known(cluster: Cluster) -> list[set[str]]:
    """Whom each member takes for the group, by name."""
    names = {url: name for name, url in cluster.peer_urls.items()}
    return [{names[url] for url in await listed(cluster, member)} for member in cluster.members]


async def all_know(cluster: Cluster, *names: str) -> None:
    """Wait until these and no others serve, and every one of them says so."""
    assert set(cluster.members) == set(names)
    await serving(cluster, [*names])

    async def agree() -> bool:
        return await known(cluster) == [set(names)] * len(names)

    await wait_until(agree, PATIENCE_S, f"{names} agree")


@pytest.mark.timeout(300)
async def test_members_come_and_go(tmp_path: Path) -> None:
    """The leader goes and another one takes its place; one more joins and another goes."""
    async with Cluster(KvstoreTarget("native"), tmp_path, ClusterOptions(), newcomers=2) as cluster:
        leader = await cluster.leader()
        one, other = (member for member in ALL if member != leader)
        fault = inject(cluster, [leader], "member.remove")
        await fault.strike()
        assert await seen(fault) == f"{leader} was removed and serves no more"
        await all_know(cluster, one, other)
        assert set(cluster.client_addresses) == {one, other}, "no client goes to it any more"
        await fault.mend()
        await all_know(cluster, one, other, "n4")

        with Recorder(tmp_path / "history.jsonl", {}) as recorder:
            await look_at_members(cluster, recorder)
            events = recorder.fault_events
        assert all(event.effective for event in events), events
        told = [(event.kind, *event.target) for event in events]
        assert told == [(REMOVED, leader), *((LISTED, member) for member in cluster.members)]

        fault = inject(cluster, [one], "member.add")
        await fault.strike()
        await wait_until(lambda: "n5" in cluster.processes, PATIENCE_S)
        await asyncio.to_thread(cluster.processes["n5"].kill)  # before it has joined
        assert await seen(fault) == "n5 joined as a learner and was promoted"
        assert cluster.processes["n5"].starts == 2, "it was started again until it joined"
        await all_know(cluster, one, other, "n4", "n5")
        await fault.mend()
        await all_know(cluster, other, "n4", "n5")


async def test_removals_at_once_leave_a_majority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three founders at once, on a group of names: nobody is ever left alone."""
    cluster = Cluster(PingTarget(), tmp_path, ClusterOptions(), newcomers=6)
    sizes: list[int] = []
    names = iter(["n4", "n5", "n6", "n7", "n8", "n9"])

    async def add(cluster: Cluster, _: object) -> str:
        await asyncio.sleep(0)
        return next(names)

    async def promote(cluster: Cluster, name: str, _: object) -> None:
        cluster.members = (*cluster.members, name)

    async def remove(cluster: Cluster, name: str, _: object) -> None:
        await asyncio.sleep(0)
        cluster.expel(name)
        sizes.append(len(cluster.members))

    for change in (add, promote, remove):
        name = "add_learner" if change is add else change.__name__
        monkeypatch.setattr(f"chaos.nemesis.injectors.membership.{name}", change)
    faults = [inject(cluster, [member], "member.remove") for member in ALL]
    for fault in faults:
        await fault.strike()
    await asyncio.gather(*(fault.end_loop() for fault in faults))
    assert set(cluster.removed) == set(ALL)
    assert min(sizes) == 2
    for fault in faults:
        await fault.mend()
    assert len(cluster.members) == 3


def test_every_class_is_tested_here_or_with_the_admin_calls() -> None:
    import inspect
    import sys

    source = inspect.getsource(sys.modules[__name__])
    untested = [
        kind
        for kind in FAULT_CLASSES
        if f'"{kind}"' not in source and not kind.startswith("admin.")
    ]
    assert untested == []
