"""Every state that a small world can come to, with every promise checked in each.

A world is three members and a bag of messages. In a state anything may happen that its budgets
still allow: any message in the bag is delivered (so they are reordered at will), delivered and kept
(a duplicate), or lost; a member's time passes, it is asked to propose or to read, it crashes, or it
crashes in the middle of any of these. Equal states are visited once; they are told apart by a hash
of 64 bits over canonical forms, in which a collision among a million has a chance of 1 in 30
million. The members' names are interchangeable, so only the first may begin.

Of the states that wait, the newest is looked at next, and now and then one drawn by chance (the
same in every process): a search that is cut short has been deep, and in many places.
"""

from __future__ import annotations

import marshal
import math
import random
import time
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import attrs

from chaos.sim.exhaustive.history import History
from chaos.sim.exhaustive.node import Event, Node, Step, started, step
from chaos.sim.invariants import Violation
from consensus.raft.configuration import Configuration
from consensus.raft.invariants import InvariantViolated
from consensus.raft.messages import AnyMessage, SnapshotMeta
from consensus.raft.ready import HardState
from consensus.types import NodeId

NAMES: Final[tuple[NodeId, ...]] = ("n1", "n2", "n3")
ELSEWHERE: Final = 0.1
"""How often the next state is drawn by chance."""
CLOCK_EVERY: Final = 256
"""States between two looks at the clock."""


@attrs.frozen(slots=True, kw_only=True)
class Scope:
    """How much may happen in one world, and so how large it is.

    Args:
        name: what the world is about.
        led: it begins when the first member leads term 1 and everybody knows; else with nothing.
        pre_vote: whether members ask before they raise the term.
        terms: terms that are looked at.
        ticks, proposals, reads, crashes, duplicates, losses: how often each may happen, in all.
        bag: messages under way at most; what does not fit is lost.
    """

    name: str
    led: bool = False
    pre_vote: bool = True
    terms: int = 2
    ticks: int = 4
    proposals: int = 0
    reads: int = 0
    crashes: int = 0
    duplicates: int = 0
    losses: int = 0
    bag: int = 6


SCOPES: Final = (
    Scope(name="elections", terms=2, ticks=4, crashes=1, duplicates=1, bag=4),
    Scope(name="votes", pre_vote=False, terms=3, ticks=4, crashes=1, duplicates=1, losses=1),
    Scope(name="replication", led=True, ticks=2, proposals=2, crashes=1, duplicates=1, losses=1),
    Scope(
        name="repair",
        led=True,
        pre_vote=False,
        terms=3,
        ticks=6,
        proposals=2,
        crashes=1,
        losses=1,
        bag=4,
    ),
    Scope(name="reads", led=True, pre_vote=False, terms=3, ticks=5, proposals=1, reads=1, bag=4),
)

_TICK, _PROPOSE, _READ, _CRASH, _DUPLICATE, _LOSE = range(6)
_State = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
_Link = tuple[Any, str] | None


@attrs.define(slots=True)
class Found:
    """How a search ended.

    Args:
        states: distinct states, every one checked.
        transitions: events followed from them.
        depth: events from the beginning to the farthest state.
        complete: whether nothing is left to look at.
        violation: what was broken, if anything was; ``path`` tells how it came to it.
    """

    scope: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    steps: int = 0
    seconds: float = 0.0
    complete: bool = False
    violation: str = ""
    path: list[str] = attrs.field(factory=list)


class Search:
    """The search of one world. What is costly is kept by number: members, messages, histories."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._base = SnapshotMeta(0, 0, Configuration.of(NAMES))
        self._nodes: list[Node] = []
        self._node_numbers: dict[Any, int] = {}
        self._messages: list[AnyMessage] = []
        self._message_numbers: dict[AnyMessage, int] = {}
        self._histories: list[History] = []
        self._history_numbers: dict[History, int] = {}
        self._steps: dict[tuple[int, str, int, bool], tuple[int, tuple[int, ...], Step]] = {}

    def run(self, states_max: int, time_limit_s: float | None = None) -> Found:
        """Look at states until all, ``states_max`` of them, or the time is used up."""
        began = time.monotonic()
        deadline = began + (math.inf if time_limit_s is None else time_limit_s)
        looked = 0
        found = Found(self._scope.name)
        try:
            first = self._first()
        except _Broken as broken:
            return Found(self._scope.name, violation=broken.why, path=[broken.what])
        prng = random.Random(0)
        seen = {_hash(first)}
        waiting: list[tuple[_State, _Link, int]] = [(first, None, 0)]
        found.states = 1
        while waiting:
            if prng.random() < ELSEWHERE:
                chosen = prng.randrange(len(waiting))
                waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
            state, link, depth = waiting.pop()
            found.depth = max(found.depth, depth)
            try:
                for what, successor in self._successors(state):
                    found.transitions += 1
                    number = _hash(successor)
                    if number in seen:
                        continue
                    seen.add(number)
                    waiting.append((successor, (link, what), depth + 1))
            except _Broken as broken:
                found.violation = broken.why
                found.path = [*_path(link), broken.what]
                break
            found.states = len(seen)
            if found.states >= states_max:
                break
            looked += 1
            if looked % CLOCK_EVERY == 0 and time.monotonic() >= deadline:
                break
        found.complete = not waiting and not found.violation
        found.steps = len(self._steps)
        found.seconds = time.monotonic() - began
        return found

    # -- inside -------------------------------------------------------------------------------

    def _first(self) -> _State:
        scope = self._scope
        disk = (HardState(), ())
        nodes = tuple(
            self._number(started(name, self._base, disk, pre_vote=scope.pre_vote)) for name in NAMES
        )
        budgets = (
            *(scope.ticks, scope.proposals, scope.reads),
            *(scope.crashes, scope.duplicates, scope.losses),
        )
        state: _State = (nodes, (), budgets, self._remember(History()))
        return self._led(state) if scope.led else state

    def _led(self, state: _State) -> _State:
        """Let the first member be elected, and everything arrive that it says."""
        for _ in range(2):
            ((_, state),) = self._follow(state, 0, "tick", -1, (), (), crash=False)
        while state[1]:
            message, *rest = state[1]
            place = NAMES.index(self._messages[message].receiver)
            ((_, state),) = self._follow(
                state, place, "deliver", message, tuple(rest), (), crash=False
            )
        return state

    def _successors(self, state: _State) -> Iterator[tuple[str, _State]]:
        nodes, bag, budgets, _ = state
        untouched = not bag and not self._histories[state[3]].begun
        for place, name in enumerate(NAMES):
            if untouched and place:
                break
            if budgets[_TICK]:
                yield from self._event(state, place, "tick", spent=_TICK)
            if budgets[_PROPOSE] and self._nodes[nodes[place]].core.is_leader:
                yield from self._event(state, place, "propose", spent=_PROPOSE)
            if budgets[_READ]:
                yield from self._event(state, place, "read", spent=_READ)
            if budgets[_CRASH]:
                yield from self._follow(state, place, "crash", -1, bag, (_CRASH,), crash=False)
            for position, message in enumerate(bag):
                if self._messages[message].receiver != name:
                    continue
                rest = bag[:position] + bag[position + 1 :]
                yield from self._event(state, place, "deliver", message, rest)
                if budgets[_DUPLICATE]:
                    yield from self._follow(
                        state, place, "deliver", message, bag, (_DUPLICATE,), crash=False
                    )
                if budgets[_LOSE]:
                    text = f"lost: {_text(self._messages[message])}"
                    yield text, (nodes, rest, _spend(budgets, (_LOSE,)), state[3])

    def _event(
        self,
        state: _State,
        place: int,
        kind: str,
        message: int = -1,
        bag: tuple[int, ...] | None = None,
        spent: int | None = None,
    ) -> Iterator[tuple[str, _State]]:
        """An event as it is, and with a crash in the middle of it."""
        rest = state[1] if bag is None else bag
        costs = () if spent is None else (spent,)
        yield from self._follow(state, place, kind, message, rest, costs, crash=False)
        if state[2][_CRASH]:
            yield from self._follow(state, place, kind, message, rest, (*costs, _CRASH), crash=True)

    def _follow(
        self,
        state: _State,
        place: int,
        kind: str,
        message: int,
        bag: tuple[int, ...],
        spent: tuple[int, ...],
        *,
        crash: bool,
    ) -> Iterator[tuple[str, _State]]:
        nodes, _, budgets, history = state
        what = self._what(place, kind, message, crash=crash)
        try:
            number, sent, done = self._step(nodes[place], kind, message, crash=crash)
            if done.node.core.term > self._scope.terms:
                return
            after = (*nodes[:place], number, *nodes[place + 1 :])
            news = self._histories[history].after(
                place, done, [self._nodes[each] for each in after], asked=kind == "read"
            )
        except (Violation, InvariantViolated) as error:
            raise _Broken(str(error), what) from error
        yield (
            what,
            (
                after,
                self._with(bag, sent),
                _spend(budgets, spent) if spent else budgets,
                self._remember(news),
            ),
        )

    def _with(self, bag: tuple[int, ...], sent: tuple[int, ...]) -> tuple[int, ...]:
        if not sent:
            return bag
        new = [number for number in dict.fromkeys(sent) if number not in bag]
        room = self._scope.bag - len(bag)
        return tuple(sorted((*bag, *new[:room]))) if room > 0 else bag

    def _step(
        self, node: int, kind: str, message: int, *, crash: bool
    ) -> tuple[int, tuple[int, ...], Step]:
        key = (node, kind, message, crash)
        known = self._steps.get(key)
        if known is None:
            carried = self._messages[message] if message >= 0 else None
            done = step(self._nodes[node], self._base, Event(kind, carried, crash))
            sent = tuple(self._post(each) for each in done.sent if each.term <= self._scope.terms)
            known = self._steps[key] = (self._number(done.node), sent, done)
        return known

    def _number(self, node: Node) -> int:
        number = self._node_numbers.setdefault(node.key, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(node)
        return number

    def _post(self, message: AnyMessage) -> int:
        number = self._message_numbers.setdefault(message, len(self._messages))
        if number == len(self._messages):
            self._messages.append(message)
        return number

    def _remember(self, history: History) -> int:
        number = self._history_numbers.setdefault(history, len(self._histories))
        if number == len(self._histories):
            self._histories.append(history)
        return number

    def _what(self, place: int, kind: str, message: int, *, crash: bool) -> str:
        text = _text(self._messages[message]) if message >= 0 else f"{NAMES[place]}: {kind}"
        return text + (f"; {NAMES[place]} dies before it syncs" if crash else "")


class _Broken(Exception):
    """A promise was broken by an event."""

    def __init__(self, why: str, what: str) -> None:
        super().__init__(why)
        self.why = why
        self.what = what


def _spend(budgets: tuple[int, ...], spent: tuple[int, ...]) -> tuple[int, ...]:
    left = list(budgets)
    for which in spent:
        left[which] -= 1
    return tuple(left)


def _hash(state: _State) -> int:
    return int.from_bytes(blake2b(marshal.dumps(state, 2), digest_size=8).digest(), "big")


def _path(link: _Link) -> list[str]:
    path = []
    while link is not None:
        link, what = link
        path.append(what)
    return path[::-1]


def _text(message: AnyMessage) -> str:
    fields = ", ".join(
        f"{field.name}={getattr(message, field.name)}"
        for field in attrs.fields(type(message))
        if field.name not in ("sender", "receiver", "entries")
    )
    entries = getattr(message, "entries", ())
    if entries:
        fields += f", entries={[(entry.index, entry.term) for entry in entries]}"
    return f"{message.sender} -> {message.receiver} {type(message).__name__}({fields})"
