"""Locks and elections against an obvious model, and the stories that fencing is for."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import statemachines.holders
from statemachines import Elections, Locks
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused

NAMES = st.sampled_from(["a", "b"])
OWNERS = st.sampled_from(["x", "y", "z", "u"])


@attrs.define
class Hold:
    """One lock of the model: who holds it, and (owner, gives up at, time to live) who waits."""

    owner: str
    token: int
    until_ms: int
    ttl_ms: int
    waiters: list[tuple[str, int, int]] = attrs.field(factory=list)


class LockRules(MachineRules):
    """Every deadline is looked for everywhere at each step; the machine has a heap."""

    machine = Locks

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Hold] = {}
        self.tokens = 0

    def grant(self, name: str, owner: str, ttl_ms: int) -> Hold:
        self.tokens += 1
        self.held[name] = Hold(owner, self.tokens, self.now_ms + ttl_ms, ttl_ms)
        return self.held[name]

    def vacate(self, name: str) -> None:
        waiters = [w for w in self.held.pop(name).waiters if w[1] > self.now_ms]
        if waiters:
            self.grant(name, waiters[0][0], waiters[0][2]).waiters = waiters[1:]

    def expire(self) -> None:
        due = sorted(
            (hold.until_ms, name)
            for name, hold in self.held.items()
            if hold.until_ms <= self.now_ms
        )
        for _, name in due:
            self.vacate(name)
        for hold in self.held.values():
            hold.waiters = [waiter for waiter in hold.waiters if waiter[1] > self.now_ms]

    @rule(name=NAMES, owner=OWNERS, ttl_ms=st.integers(1, 20), wait_ms=st.integers(0, 30))
    def acquire(self, name: str, owner: str, ttl_ms: int, wait_ms: int) -> None:
        self.expire()
        hold = self.held.get(name)
        if hold is None:
            hold = self.grant(name, owner, ttl_ms)
        elif hold.owner == owner:
            hold.until_ms, hold.ttl_ms = self.now_ms + ttl_ms, ttl_ms
        elif wait_ms:
            mine = (owner, self.now_ms + wait_ms, ttl_ms)
            if owner in [waiter[0] for waiter in hold.waiters]:
                hold.waiters = [mine if w[0] == owner else w for w in hold.waiters]
            else:
                hold.waiters.append(mine)
        answer = self.do("acquire", name=name, owner=owner, ttl_ms=ttl_ms, wait_ms=wait_ms)
        assert answer["held"] == (hold.owner == owner)
        assert answer["expires_ms"] == hold.until_ms
        if answer["held"]:
            assert answer["token"] == hold.token
        else:
            line = [waiter[0] for waiter in hold.waiters]
            assert answer["place"] == (line.index(owner) + 1 if owner in line else 0)

    @precondition(lambda self: self.tokens)
    @rule(name=NAMES, back=st.integers(0, 2))
    def renew(self, name: str, back: int) -> None:
        self.expire()
        token = max(1, self.tokens - back)
        hold = self.held.get(name)
        valid = hold is not None and hold.token == token
        assert refused(self.do("renew", name=name, token=token)) == (not valid)
        if hold is not None and valid:
            hold.until_ms = self.now_ms + hold.ttl_ms

    @precondition(lambda self: self.tokens)
    @rule(name=NAMES, back=st.integers(0, 2))
    def release(self, name: str, back: int) -> None:
        self.expire()
        token = max(1, self.tokens - back)
        hold = self.held.get(name)
        valid = hold is not None and hold.token == token
        if valid:
            self.vacate(name)
        answer = self.do("release", name=name, token=token)
        assert refused(answer) == (not valid)
        if valid:
            assert answer == {"next": self.held[name].owner if name in self.held else None}

    @rule(name=NAMES, owner=OWNERS)
    def cancel(self, name: str, owner: str) -> None:
        self.expire()
        hold = self.held.get(name)
        waited = hold is not None and owner in [waiter[0] for waiter in hold.waiters]
        if hold is not None:
            hold.waiters = [waiter for waiter in hold.waiters if waiter[0] != owner]
        assert self.do("cancel", name=name, owner=owner) == {"waited": waited}

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        self.do("tick")
        self.expire()
        hold = self.held.get(name)
        assert self.ask("holder", name=name) == (
            hold
            and {
                "owner": hold.owner,
                "token": hold.token,
                "expires_ms": hold.until_ms,
                "waiters": [waiter[0] for waiter in hold.waiters],
            }
        )


TestLocks = LockRules.TestCase
TestLocks.settings = STATEFUL


def test_who_waits_gets_the_lock_in_order_with_a_larger_token_each_time() -> None:
    driver = Driver(Locks)
    tokens = [driver.do("acquire", name="l", owner="o0", ttl_ms=10)["token"]]
    for number in range(1, 4):
        answer = driver.do("acquire", name="l", owner=f"o{number}", ttl_ms=10, wait_ms=1000)
        assert answer["place"] == number
    for number in range(1, 4):
        driver.clock_ms += 10
        driver.do("tick")
        holder = driver.ask("holder", name="l")
        assert holder["owner"] == f"o{number}"
        tokens.append(holder["token"])
    assert tokens == sorted(set(tokens))


def test_tokens_grow_after_a_lock_was_free_and_after_a_restart() -> None:
    driver = Driver(Locks)
    first = driver.do("acquire", name="l", owner="a", ttl_ms=10)["token"]
    driver.do("release", name="l", token=first)
    assert driver.ask("holder", name="l") is None
    driver.restart()
    assert driver.do("acquire", name="l", owner="a", ttl_ms=10)["token"] > first


def test_a_holder_that_was_paused_learns_that_it_lost_the_lock() -> None:
    driver = Driver(Locks)
    old = driver.do("acquire", name="l", owner="a", ttl_ms=10)["token"]
    driver.do("acquire", name="l", owner="b", ttl_ms=10, wait_ms=1000)
    driver.clock_ms += 10
    reason = driver.do("renew", name="l", token=old)["refused"]
    assert "does not hold lock 'l'" in reason
    assert "b does, by token" in reason
    assert refused(driver.do("release", name="l", token=old))


def test_bounds_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statemachines.holders, "NAMES_MAX", 1)
    monkeypatch.setattr(statemachines.holders, "WAITERS_MAX", 1)
    driver = Driver(Locks)
    driver.do("acquire", name="l", owner="a", ttl_ms=10)
    assert "1 locks are held" in driver.do("acquire", name="m", owner="a", ttl_ms=10)["refused"]
    driver.do("acquire", name="l", owner="b", ttl_ms=10, wait_ms=10)
    third = driver.do("acquire", name="l", owner="c", ttl_ms=10, wait_ms=10)
    assert "wait for lock 'l' already" in third["refused"]
    assert driver.ask("holder", name="l")["waiters"] == ["b"]


def test_an_election_hands_over_when_heartbeats_stop_and_terms_grow() -> None:
    driver = Driver(Elections)

    def stand(candidate: str) -> dict[str, object]:
        answer: dict[str, object] = driver.do(
            "campaign", election="e", candidate=candidate, ttl_ms=10, data=f"{candidate}:80"
        )
        return answer

    first = stand("a")
    assert first["leads"]
    waiting = stand("b")
    assert (waiting["leader"], waiting["data"], waiting["place"]) == ("a", "a:80", 1)
    stand("c")
    driver.clock_ms += 9
    driver.do("heartbeat", election="e", term=first["term"])
    driver.clock_ms += 1  # b and c were silent too long, a was not
    driver.do("tick")
    assert driver.ask("observe", election="e")["candidates"] == []
    stand("b")
    driver.clock_ms += 9
    stand("b")  # a has been silent since: b leads
    now = driver.ask("observe", election="e")
    assert (now["leader"], now["data"]) == ("b", "b:80")
    assert now["term"] > first["term"]  # type: ignore[operator]
    assert refused(driver.do("heartbeat", election="e", term=first["term"]))
    assert driver.do("resign", election="e", term=now["term"]) == {"leader": None}
    assert driver.ask("observe", election="e") is None


def test_a_candidate_may_withdraw() -> None:
    driver = Driver(Elections)
    driver.do("campaign", election="e", candidate="a", ttl_ms=10)
    driver.do("campaign", election="e", candidate="b", ttl_ms=10)
    assert driver.do("withdraw", election="e", candidate="b") == {"stood": True}
    assert driver.do("withdraw", election="e", candidate="b") == {"stood": False}
    assert driver.do("resign", election="e", term=1) == {"leader": None}
