"""Who is in the group: histories by hand, good and bad in every way, and the last look at it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chaos.checkers.group import GHOSTS, GROUP, check_group
from chaos.checkers.membership import LISTED, REMOVED, check_membership, was_looked_at
from chaos.history.format import FaultEvent, History, Operation, Outcome, StatusEvent
from chaos.history.recorder import Recorder
from chaos.verdict import Kind, Verdict
from chaos.workloads.base import Setting
from chaos.workloads.kv import KvProcess
from chaos.workloads.register import RegisterWorkload
from kvstore.client import AsyncClient
from tests.chaos.records import FAIL, UNKNOWN, history, op
from tests.waiting import wait_until

PEERS = {f"n{number}": f"http://127.0.0.1:{number}" for number in range(1, 5)}
G, H = (f"{GHOSTS}0.{number}:9" for number in (1, 2))
IDS = {**{url: name for name, url in PEERS.items()}, G: "a1", H: "a2"}
FOUNDERS = [PEERS[name] for name in ("n1", "n2", "n3")]

Span = tuple[int, int | None]


def change(number: int, f: str, at: Span, url: str, outcome: Outcome | None = None) -> Operation:
    """An addition, a promotion or a removal of a ghost."""
    return op(number, f, at, {"id": IDS[url], "url": url}, {}, key=GROUP, outcome=outcome)


def listed(number: int, at: Span, *others: str, ids: dict[str, str] | None = None) -> Operation:
    """A list with the founders and others; a "+" before a URL says that it votes."""
    members: list[list[Any]] = [[IDS[url], url, False] for url in FOUNDERS]
    for other in others:
        url = other.lstrip("+")
        members.append([(ids or IDS).get(url, "ff"), url, not other.startswith("+")])
    return op(number, "read", at, None, {"members": members}, key=GROUP)


def without(number: int, at: Span, name: str) -> Operation:
    """A list that lacks a founder."""
    members = [[IDS[url], url, False] for url in FOUNDERS if url != PEERS[name]]
    return op(number, "read", at, None, {"members": members}, key=GROUP)


LIFE = [
    change(0, "add", (10, 20), G),
    listed(1, (30, 40), G),
    change(2, "remove", (50, 60), G),
    listed(3, (70, 80)),
]

GOOD: dict[str, list[Operation]] = {
    "a life": LIFE,
    "seen or not while it is added": [
        *LIFE,
        listed(4, (11, 19), G),
        listed(5, (11, 12)),
        listed(6, (51, 59)),
    ],
    "a second one, at its own address": [
        *LIFE,
        change(4, "add", (90, 99), H),
        listed(5, (100, 101), H),
    ],
    "of unknown outcome, and seen, and gone": [
        change(0, "add", (10, None), G),
        listed(1, (30, 40)),
        listed(2, (50, 60), G),
        change(3, "remove", (70, None), G),
        listed(4, (80, 90)),
        change(5, "add", (100, 110), H),
    ],
    "a promotion that was refused": [*LIFE, change(4, "promote", (41, 42), G, FAIL)],
    "a member that runs joins and votes, another one goes": [
        *LIFE,
        listed(4, (90, 91), PEERS["n4"]),
        listed(5, (92, 93), "+" + PEERS["n4"]),
        without(6, (94, 95), "n3"),
        without(7, (96, 97), "n3"),
    ],
}

BAD: dict[str, tuple[list[Operation], Kind]] = {
    "an acknowledged addition is lost": (
        [change(0, "add", (10, 20), G), listed(1, (30, 40))],
        Kind.MEMBER_LOST,
    ),
    "what was removed is back": ([*LIFE, listed(4, (90, 99), G)], Kind.MEMBER_RETURNED),
    "there before anybody added it": (
        [listed(0, (1, 2), G), *LIFE[:2]],
        Kind.UNEXPLAINED_MEMBER,
    ),
    "there though its addition was refused": (
        [*LIFE, change(4, "add", (81, 82), H, FAIL), listed(5, (90, 99), H)],
        Kind.UNEXPLAINED_MEMBER,
    ),
    "a stranger": ([*LIFE, listed(4, (90, 99), "http://10.0.0.1:1")], Kind.UNEXPLAINED_MEMBER),
    "a ghost was promoted": (
        [*LIFE, change(4, "promote", (41, 42), G)],
        Kind.WRONGLY_PROMOTED,
    ),
    "a ghost votes": ([LIFE[0], listed(1, (30, 40), "+" + G)], Kind.WRONGLY_PROMOTED),
    "a member that runs comes back under its ID": (
        [*LIFE, without(4, (90, 91), "n3"), listed(5, (92, 93))],
        Kind.MEMBER_RETURNED,
    ),
    "one that voted is a learner": (
        [
            *LIFE,
            listed(4, (90, 91), "+" + PEERS["n4"]),
            listed(5, (92, 93), PEERS["n4"]),
        ],
        Kind.MEMBER_DEMOTED,
    ),
    "one address, two IDs": (
        [*LIFE, listed(4, (31, 39), G, ids={G: "b7"})],
        Kind.MEMBER_IDENTITY,
    ),
    "one ID, two addresses": (
        [*LIFE[:3], listed(4, (90, 91), PEERS["n4"], ids={PEERS["n4"]: IDS[G]})],
        Kind.MEMBER_IDENTITY,
    ),
    "two lists in an order that is none": (
        [
            change(0, "add", (10, None), G),
            listed(1, (30, 40), G),
            listed(2, (50, 60)),
            listed(3, (70, 80), G),
        ],
        Kind.MEMBER_RETURNED,
    ),
    "added twice, and both acknowledged": (
        [*LIFE[:2], change(4, "add", (41, 42), G)],
        Kind.NOT_LINEARIZABLE,
    ),
    "removed twice, and both acknowledged": (
        [*LIFE, change(4, "remove", (81, 82), G)],
        Kind.NOT_LINEARIZABLE,
    ),
    "two lists that each lack what the other has": (
        [
            change(0, "add", (10, 100), G),
            change(1, "add", (11, 99), H),
            listed(2, (20, 30), G),
            listed(3, (40, 50), H),
        ],
        Kind.NOT_LINEARIZABLE,
    ),
}


def of(operations: list[Operation], statuses: tuple[StatusEvent, ...] = ()) -> History:
    made = history(operations, peers=PEERS, target="kvstore")
    made.statuses = list(statuses)
    return made


@pytest.mark.parametrize("operations", GOOD.values(), ids=GOOD.keys())
def test_good_groups(operations: list[Operation]) -> None:
    result = check_group(of(operations))
    assert result.verdict is Verdict.OK, result.findings


@pytest.mark.parametrize(("operations", "kind"), BAD.values(), ids=BAD.keys())
def test_bad_groups(operations: list[Operation], kind: Kind) -> None:
    result = check_group(of(operations))
    assert result.verdict is Verdict.VIOLATED
    assert set(result.counts) == {kind}, result.findings
    assert result.findings[0].operations, "what shows it is named"


def test_a_group_that_nobody_looked_at_or_changed_is_unknown() -> None:
    assert check_group(of([])).verdict is Verdict.UNKNOWN
    assert check_group(of([LIFE[0]])).verdict is Verdict.UNKNOWN
    assert check_group(of([listed(1, (30, 40))])).verdict is Verdict.UNKNOWN
    refused = change(0, "add", (10, 20), G, FAIL)
    assert check_group(of([refused, listed(1, (30, 40))])).verdict is Verdict.UNKNOWN


def test_a_search_without_the_steps_for_it_is_unknown() -> None:
    assert check_group(of(LIFE), steps_max=2).verdict is Verdict.UNKNOWN


def test_many_additions_of_unknown_outcome_are_decided() -> None:
    urls = [f"{GHOSTS}1.{number}:9" for number in range(1, 101)]
    lost = [
        op(100 + n, "add", (10 + n, None), {"url": url}, key=GROUP, outcome=UNKNOWN)
        for n, url in enumerate(urls)
    ]
    lists = [listed(300 + n, (400 + 2 * n, 401 + 2 * n)) for n in range(100)]
    result = check_group(of([*LIFE, *lost, *lists]))
    assert result.verdict is Verdict.OK, result.findings


def test_one_leader_in_each_term() -> None:
    led = [
        StatusEvent(1, "n1", "leader", 4),
        StatusEvent(2, "n2", "follower", 4),
        StatusEvent(3, "n1", "silent"),
        StatusEvent(4, "n1", "leader", 4),
        StatusEvent(5, "n2", "leader", 5),
    ]
    assert check_group(of(LIFE, tuple(led))).verdict is Verdict.OK
    both = StatusEvent(6, "n3", "leader", 4)
    result = check_group(of(LIFE, (*led, both)))
    assert result.counts == {Kind.TWO_LEADERS: 1}
    assert result.findings[0].text == "n1 and n3 both led in term 4"


async def test_evidence_is_taken_at_members_of_the_present_group(tmp_path: Path) -> None:
    """Work at the members begins anew when others are in the group, and ends when it is done."""
    direct = {"n1": "127.0.0.1:1"}
    began: list[dict[str, str]] = []
    cancelled: list[int] = []

    async def work(_: AsyncClient) -> None:
        began.append(dict(direct))
        if len(began) < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(len(began))
                raise

    with Recorder(tmp_path / "history.jsonl", {}) as recorder:
        workload = RegisterWorkload(
            Setting(direct, direct, recorder, Random(1), RegisterWorkload.defaults)
        )
        working = asyncio.create_task(workload.at_members(work))
        await wait_until(lambda: len(began) == 1)
        direct["n2"] = "127.0.0.1:2"
        await wait_until(lambda: len(began) == 2)
        del direct["n1"]
        await asyncio.wait_for(working, 30.0)
    assert began == [
        {"n1": "127.0.0.1:1"},
        {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"},
        {"n2": "127.0.0.1:2"},
    ]
    assert cancelled == [1, 2]


async def test_a_client_leaves_a_member_that_left_the_group(tmp_path: Path) -> None:
    addresses = {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}
    with Recorder(tmp_path / "history.jsonl", {}) as recorder:
        workload = RegisterWorkload(
            Setting(addresses, addresses, recorder, Random(1), RegisterWorkload.defaults)
        )
        process: KvProcess = KvProcess(workload, 0, Random(1), "n1", 1.0)
        process.stay()
        assert process.member == "n1"
        del addresses["n1"]
        operation = await workload.get(process, "k")  # nothing listens there
        assert (operation.node, operation.outcome) == ("n2", Outcome.FAIL)
        await process.close()


def last_look(kind: str, effective: bool, text: str) -> FaultEvent:
    return FaultEvent(1, kind, "end", ("n3",), text, effective)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (last_look(REMOVED, False, "it was removed, and serves"), Kind.REMOVED_SERVES),
        (last_look(LISTED, False, "says a and not b"), Kind.GROUP_DISAGREES),
    ],
)
def test_what_the_last_look_finds(event: FaultEvent, kind: Kind) -> None:
    well = [last_look(REMOVED, True, "it ended"), last_look(LISTED, True, "agrees")]
    assert check_membership(history([], faults=well)).verdict is Verdict.OK
    assert was_looked_at(history([], faults=well))
    assert not was_looked_at(history([]))
    result = check_membership(history([], faults=[*well, event]))
    assert result.counts == {kind: 1}
    assert result.findings[0].text == f"n3: {event.evidence}"
