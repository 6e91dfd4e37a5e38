"""Semaphores against an obvious model."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

import statemachines.semaphore
from statemachines import Semaphores
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused

OWNERS = st.sampled_from(["x", "y", "z"])


@attrs.define
class Hold:
    """Permits that an owner of the model holds."""

    token: int
    permits: int
    until_ms: int
    ttl_ms: int


class SemaphoreRules(MachineRules):
    machine = Semaphores

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3
        self.held: dict[str, Hold] = {}
        self.tokens = 0
        self.do("configure", name="s", permits=3)

    def expire(self) -> None:
        self.held = {o: hold for o, hold in self.held.items() if hold.until_ms > self.now_ms}

    def used(self) -> int:
        return sum(hold.permits for hold in self.held.values())

    @rule(limit=st.integers(1, 4))
    def configure(self, limit: int) -> None:
        self.expire()
        self.limit = limit
        answer = self.do("configure", name="s", permits=limit)
        assert answer == {"permits": limit, "available": max(0, limit - self.used())}

    @rule(owner=OWNERS, ttl_ms=st.integers(1, 20), permits=st.integers(1, 4))
    def acquire(self, owner: str, ttl_ms: int, permits: int) -> None:
        self.expire()
        answer = self.do("acquire", name="s", owner=owner, ttl_ms=ttl_ms, permits=permits)
        mine = self.held.get(owner)
        if permits > self.limit or (mine and mine.permits != permits):
            assert refused(answer)
        elif mine:
            mine.until_ms, mine.ttl_ms = self.now_ms + ttl_ms, ttl_ms
            assert (answer["held"], answer["token"]) == (True, mine.token)
        elif self.used() + permits > self.limit:
            assert answer == {"held": False, "available": max(0, self.limit - self.used())}
        else:
            assert answer["token"] > self.tokens
            self.tokens = answer["token"]
            self.held[owner] = Hold(self.tokens, permits, self.now_ms + ttl_ms, ttl_ms)

    @precondition(lambda self: self.tokens)
    @rule(back=st.integers(0, 2), release=st.booleans())
    def renew_or_release(self, back: int, release: bool) -> None:
        self.expire()
        token = max(1, self.tokens - back)
        owner = next((o for o, hold in self.held.items() if hold.token == token), None)
        answer = self.do("release" if release else "renew", name="s", token=token)
        assert refused(answer) == (owner is None)
        if owner is not None and release:
            del self.held[owner]
        elif owner is not None:
            self.held[owner].until_ms = self.now_ms + self.held[owner].ttl_ms

    @invariant()
    def status_agrees(self) -> None:
        self.do("tick")
        self.expire()
        status = self.ask("status", name="s")
        assert status["permits"] == self.limit
        assert {row["owner"]: row["permits"] for row in status["holders"]} == {
            owner: hold.permits for owner, hold in self.held.items()
        }


TestSemaphores = SemaphoreRules.TestCase
TestSemaphores.settings = STATEFUL


def test_a_semaphore_that_is_not_configured_is_refused_by_name() -> None:
    answer = Driver(Semaphores).do("acquire", name="s", owner="x", ttl_ms=1)
    assert answer == {"refused": "there is no semaphore 's'; configure it first"}


def test_a_semaphore_is_removed_only_when_nobody_holds() -> None:
    driver = Driver(Semaphores)
    driver.do("configure", name="s", permits=1)
    token = driver.do("acquire", name="s", owner="x", ttl_ms=10)["token"]
    assert "still held" in driver.do("configure", name="s", permits=0)["refused"]
    driver.do("release", name="s", token=token)
    assert driver.do("configure", name="s", permits=0) == {"permits": 0, "available": 0}
    assert refused(driver.ask("status", name="s"))


def test_bounds_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statemachines.semaphore, "SEMAPHORES_MAX", 1)
    monkeypatch.setattr(statemachines.semaphore, "HOLDERS_MAX", 1)
    driver = Driver(Semaphores)
    driver.do("configure", name="s", permits=5)
    assert "1 semaphores already" in driver.do("configure", name="t", permits=5)["refused"]
    driver.do("acquire", name="s", owner="x", ttl_ms=10)
    second = driver.do("acquire", name="s", owner="y", ttl_ms=10)
    assert "1 holders already" in second["refused"]
