"""Known losses of PySyncObj as published, found by the checkers of sets and of recovery."""

from __future__ import annotations

import asyncio
from typing import Final

from chaos.calibrate.scene import Scenario, Scene
from chaos.calibrate.stock.target import Refused, StockClient, StockTarget
from chaos.checkers.assumptions import HEAL, check_recovery
from chaos.checkers.sets import check_set
from chaos.cluster.cluster import ClusterFailed
from chaos.cluster.rpc import CallFailed
from chaos.history.format import Operation, Outcome
from chaos.verdict import Kind

CALL_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 10.0
CLIENTS: Final = 40
KILL_ROUNDS: Final = 8
LOAD_S: Final = 2.0
READY_TIMEOUT_S: Final = 10.0
MANY: Final = 10_600
"""Twice the entries after which the library compacts its log, and some."""

STATE_BYTES: Final = 16_000_000
"""A snapshot of so much takes long enough for entries to come while it is written."""

ANSWERS_S: Final = 0.5
"""Time for a leader to read what a member that died had sent, and to answer its clients."""

CRASH_TIMEOUT_S: Final = 45.0
"""How long the library has to come to the step at which a member is to end."""


class Load:
    """Clients that add items, each a new one, at some members until they are stopped."""

    def __init__(self, scene: Scene, members: tuple[str, ...], clients: int = CLIENTS) -> None:
        self.acknowledged = 0
        self._scene = scene
        self._stopping = False
        addresses = scene.cluster.direct_addresses
        self._clients = [
            StockClient(addresses[members[n % len(members)]], CALL_TIMEOUT_S)
            for n in range(clients)
        ]
        self._tasks = [asyncio.create_task(self._run(client)) for client in self._clients]

    async def stop(self) -> None:
        """Let each end its operation."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.close()

    async def _run(self, client: StockClient) -> None:
        process, number = self._scene.new_process(), 0
        while not self._stopping:
            number += 1
            done = await add(self._scene, client, process, f"{process}-{number}")
            self.acknowledged += done.outcome is Outcome.OK
            if done.outcome is Outcome.UNKNOWN:
                process, number = self._scene.new_process(), 0
                await asyncio.sleep(0.05)


async def add(scene: Scene, client: StockClient, process: int, item: str) -> Operation:
    """Add an item and record it; what was refused is recorded as failed."""
    operation = scene.recorder.invoke(process, "add", "", None, None, item)
    operation.node = client.address
    try:
        await client.add(item)
    except Refused as error:
        operation.error = str(error)
        scene.recorder.complete(operation, Outcome.FAIL)
    except CallFailed as error:
        operation.error = str(error)
        scene.recorder.complete(operation, Outcome.UNKNOWN)
    else:
        scene.recorder.complete(operation, Outcome.OK)
    return operation


async def read_everywhere(scene: Scene, members: tuple[str, ...]) -> set[str] | None:
    """Read at every member and record it; return what all of them hold, None if none answered."""
    held: list[set[str]] = []
    for member in members:
        client = StockClient(scene.cluster.direct_addresses[member], READ_TIMEOUT_S)
        operation = scene.recorder.invoke(scene.new_process(), "read", "")
        operation.node = member
        try:
            operation.output = await client.read()
        except CallFailed as error:
            operation.error = str(error)
            scene.recorder.complete(operation, Outcome.FAIL)
        else:
            scene.recorder.complete(operation, Outcome.OK)
            held.append(set(operation.output))
        await client.close()
    return set[str]().union(*held) if held else None


async def kill_all(scene: Scene) -> None:
    """End every member at once with SIGKILL."""
    members = scene.cluster.members
    scene.recorder.fault("proc.kill", "start", members)
    await scene.cluster.kill(members)
    scene.recorder.fault("proc.kill", "effect", members, "all were killed at once")


async def start_all(scene: Scene) -> bool:
    """Start them again; write into the history whether they serve, and return it."""
    members = scene.cluster.members
    await scene.cluster.restart(members)
    scene.recorder.fault("proc.kill", "end", members)
    return await healed(scene)


async def healed(scene: Scene) -> bool:
    """Wait until every member serves, and an item can be added; write down whether it can."""
    cluster = scene.cluster
    try:
        await cluster.wait_serving(READY_TIMEOUT_S)
    except ClusterFailed as error:
        text = str(error).partition("\n")[0]
        scene.recorder.fault(HEAL, "end", cluster.members, text, False)
        return False
    client = StockClient(cluster.direct_addresses[cluster.members[0]], CALL_TIMEOUT_S)
    loop = asyncio.get_running_loop()
    deadline, served = loop.time() + READY_TIMEOUT_S, False
    while not served and loop.time() < deadline:
        process = scene.new_process()
        done = await add(scene, client, process, f"{process}-1")
        served = done.outcome is Outcome.OK
    await client.close()
    text = "all serve" if served else f"no item was added in {READY_TIMEOUT_S:g} s"
    scene.recorder.fault(HEAL, "end", cluster.members, text, served)
    return served


async def killed_while_compacting(scene: Scene) -> None:
    """Kill all members at once under load, again and again, with small snapshots."""
    members = scene.cluster.members
    acknowledged = 0
    for round in range(KILL_ROUNDS):
        load = Load(scene, members)
        await asyncio.sleep(LOAD_S + 0.1 * round)
        await kill_all(scene)
        await load.stop()
        acknowledged += load.acknowledged
        scene.say(f"{acknowledged} items acknowledged, all members killed {round + 1} times")
        if not await start_all(scene):
            break
        held = await read_everywhere(scene, members)
        if held is None or len(held) < acknowledged:
            break


async def cut_short_compaction(scene: Scene) -> None:
    """One member dies while its journal is written again behind a new snapshot."""
    cluster = scene.cluster
    (member,) = cluster.members
    load = Load(scene, cluster.members, clients=100)
    await scene.until(lambda: not cluster.processes[member].running, "it died", CRASH_TIMEOUT_S)
    await load.stop()
    if cluster.processes[member].running:
        return
    scene.recorder.fault("proc.kill", "effect", [member], "it died inside a compaction")
    await cluster.restart([member])
    await healed(scene)
    await read_everywhere(scene, cluster.members)


async def journal_alone(scene: Scene) -> None:
    """Restart a member that has a journal and no dump, after its first compaction."""
    load = Load(scene, scene.cluster.members, clients=400)
    await scene.until(lambda: load.acknowledged >= MANY, f"{MANY} items")
    await load.stop()
    await kill_all(scene)
    await start_all(scene)
    await read_everywhere(scene, scene.cluster.members)


async def truncated_again(scene: Scene) -> None:
    """A follower dies while it truncates what it had acknowledged; then the leader is gone too.

    The third member knows none of it: acknowledgements came from the follower alone.
    """
    cluster = scene.cluster
    leader = await cluster.leader()
    lagging, follower = (member for member in cluster.members if member != leader)
    scene.recorder.fault("proc.pause", "start", [lagging])
    await cluster.pause([lagging])
    load = Load(scene, (leader,))
    died = await scene.until(
        lambda: not cluster.processes[follower].running, "the follower died", CRASH_TIMEOUT_S
    )
    await asyncio.sleep(ANSWERS_S)
    await cluster.kill([leader])
    await load.stop()
    if not died:
        return
    scene.recorder.fault("proc.kill", "effect", [follower], "it died after a truncation")
    scene.recorder.fault("proc.kill", "effect", [leader], "killed, and never started again")
    await cluster.resume([lagging])
    scene.recorder.fault("proc.pause", "end", [lagging])
    await cluster.restart([follower])
    await cluster.wait_serving(30.0, [lagging, follower])
    await read_everywhere(scene, (lagging, follower))


async def wedged(scene: Scene) -> None:
    """One command raises in the application; restart all, and try to go on."""
    cluster = scene.cluster
    client = StockClient(cluster.direct_addresses[await cluster.leader()], CALL_TIMEOUT_S)
    for number in range(5):
        await add(scene, client, number, f"{number}-1")
    await add(scene, client, scene.new_process(), "poison")
    await client.close()
    await kill_all(scene)
    await start_all(scene)
    await read_everywhere(scene, cluster.members)


_SMALL: Final = ("--compact-entries", "500")
_LOSS: Final = frozenset({Kind.LOST_ELEMENT})
_CHECKS: Final = (check_set, check_recovery)

SCENARIOS: Final = (
    Scenario(
        name="wedged",
        system="pysyncobj",
        defect="PySyncObj (j): one exception in a command stops the cluster for ever",
        body=wedged,
        checks=_CHECKS,
        finds=frozenset({Kind.NOT_RECOVERED}),
        target=StockTarget,
        workload="set",
    ),
    Scenario(
        name="journal-alone",
        system="pysyncobj",
        defect="PySyncObj (e): with a journal and no dump all is lost at the restart after a "
        "compaction",
        body=journal_alone,
        checks=_CHECKS,
        finds=_LOSS | {Kind.NOT_RECOVERED},
        target=lambda: StockTarget("--no-dump"),
        nodes=1,
        workload="set",
    ),
    Scenario(
        name="compaction-cut-short",
        system="pysyncobj",
        defect="PySyncObj (d): a crash while the journal is compacted loses what it kept",
        body=cut_short_compaction,
        checks=_CHECKS,
        finds=_LOSS,
        target=lambda: StockTarget(
            *(*_SMALL, "--state-bytes", str(STATE_BYTES)),
            *("--crash-point", "inside-compaction"),
        ),
        nodes=1,
        workload="set",
    ),
    Scenario(
        name="kill-all",
        system="pysyncobj",
        defect="PySyncObj (b): kill all under load with compaction, acknowledged items are gone",
        body=killed_while_compacting,
        checks=_CHECKS,
        finds=_LOSS,
        target=lambda: StockTarget(*_SMALL),
        rounds=3,
        workload="set",
    ),
    Scenario(
        name="truncated-again",
        system="pysyncobj",
        defect="PySyncObj (h): a follower truncates entries that it acknowledged; a crash there "
        "and the leader's end lose them",
        body=truncated_again,
        checks=_CHECKS,
        finds=_LOSS,
        target=lambda: StockTarget("--no-batch", "--crash-point", "after-truncation"),
        rounds=4,
        workload="set",
    ),
)
"""All of them, the quickest first."""
