"""The scheduler: placement, loss of workers, attempts; and what must hold after any history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

import statemachines.scheduler
from statemachines import Scheduler
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused

WORKERS = st.sampled_from(["w1", "w2", "w3"])


class SchedulerRules(MachineRules):
    """The model knows each task's fate and who is alive; placement is checked by its rule."""

    machine = Scheduler

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[str, tuple[int, int]] = {}  # worker: (time to live, lives until)
        self.capacity: dict[str, int] = {}
        self.submitted = 0
        self.running: dict[str, tuple[str, int]] = {}  # task: (worker, attempt)
        self.attempts: dict[str, int] = {}
        self.over: dict[str, str] = {}
        self.stale: list[tuple[str, str, int]] = []

    def lose(self, worker: str) -> None:
        del self.alive[worker]
        for task, (of, attempt) in list(self.running.items()):
            if of == worker:
                del self.running[task]
                self.stale.append((of, task, attempt))
                if attempt == 3:
                    self.over[task] = "failed"

    def expire(self) -> None:
        for worker, (_, until_ms) in sorted(self.alive.items()):
            if until_ms <= self.now_ms:
                self.lose(worker)

    @rule(worker=WORKERS, capacity=st.integers(1, 3), ttl_ms=st.integers(5, 30))
    def join(self, worker: str, capacity: int, ttl_ms: int) -> None:
        self.expire()
        self.alive[worker] = (ttl_ms, self.now_ms + ttl_ms)
        self.capacity[worker] = capacity
        answer = self.do("join", worker=worker, capacity=capacity, ttl_ms=ttl_ms)
        assert answer == {"expires_ms": self.now_ms + ttl_ms}

    @rule(worker=WORKERS)
    def heartbeat(self, worker: str) -> None:
        self.expire()
        answer = self.do("heartbeat", worker=worker)
        assert refused(answer) == (worker not in self.alive)
        if worker in self.alive:
            ttl_ms = self.alive[worker][0]
            self.alive[worker] = (ttl_ms, self.now_ms + ttl_ms)

    @rule(worker=WORKERS)
    def leave(self, worker: str) -> None:
        self.expire()
        assert refused(self.do("leave", worker=worker)) == (worker not in self.alive)
        if worker in self.alive:
            self.lose(worker)

    @rule()
    def submit(self) -> None:
        self.expire()
        self.submitted += 1
        task = f"t{self.submitted}"
        self.attempts[task] = 0
        answer = self.do("submit", task=task, payload=self.submitted)
        assert answer["state"] in ("pending", "assigned")
        assert self.do("submit", task=task, payload=self.submitted) == answer
        assert refused(self.do("submit", task=task, payload="other"))

    @rule(worker=WORKERS)
    def claim(self, worker: str) -> None:
        self.expire()
        answer = self.do("claim", worker=worker)
        if worker not in self.alive:
            assert refused(answer)
            return
        ttl_ms = self.alive[worker][0]
        self.alive[worker] = (ttl_ms, self.now_ms + ttl_ms)
        for work in answer:
            task = work["task"]
            assert task not in self.running
            assert task not in self.over
            assert work["payload"] == int(task[1:])
            assert work["attempt"] == self.attempts[task] + 1
            self.attempts[task] += 1
            self.running[task] = (worker, work["attempt"])

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 9), good=st.booleans())
    def finish(self, place: int, good: bool) -> None:
        self.expire()
        if not self.running:
            self.do("tick")
            return
        task = sorted(self.running)[place % len(self.running)]
        worker, attempt = self.running.pop(task)
        self.stale.append((worker, task, attempt))
        answer = self.do("complete" if good else "fail", worker=worker, task=task, attempt=attempt)
        if good or attempt == 3:
            self.over[task] = "done" if good else "failed"
            assert answer["state"] == self.over[task]
        else:
            assert answer["state"] in ("pending", "assigned")

    @precondition(lambda self: self.stale)
    @rule(place=st.integers(0, 9))
    def finish_what_is_not_ones_own_any_more(self, place: int) -> None:
        self.expire()
        worker, task, attempt = self.stale[place % len(self.stale)]
        assert refused(self.do("complete", worker=worker, task=task, attempt=attempt))

    @invariant()
    def nothing_is_lost_and_placement_follows_its_rule(self) -> None:
        self.do("tick")
        self.expire()
        workers = {row["worker"]: row for row in self.ask("workers")}
        assert sorted(workers) == sorted(self.alive)
        placed: dict[str, str] = {}
        for name, row in workers.items():
            assert row["capacity"] == self.capacity[name]
            placed |= dict.fromkeys(row["tasks"], name)
        assert sum(len(row["tasks"]) for row in workers.values()) == len(placed)
        pending = []
        for number in range(1, self.submitted + 1):
            task = f"t{number}"
            status = self.ask("status", task=task)
            assert status["worker"] == placed.get(task)
            if task in self.over:
                assert status["state"] == self.over[task]
            elif task in self.running:
                assert (status["state"], status["worker"]) == ("running", self.running[task][0])
            else:
                assert status["state"] == ("assigned" if task in placed else "pending")
                pending += [task] if task not in placed else []
        if pending:  # then nobody has room
            assert all(len(row["tasks"]) >= row["capacity"] for row in workers.values())


TestScheduler = SchedulerRules.TestCase
TestScheduler.settings = STATEFUL


def states(driver: Driver, *tasks: str) -> list[Any]:
    """(state, worker) of each task."""
    found = [driver.ask("status", task=task) for task in tasks]
    return [(status["state"], status["worker"]) for status in found]


def test_tasks_go_to_the_worker_with_most_room_and_by_name_among_equals() -> None:
    driver = Driver(Scheduler)
    for worker, capacity in (("b", 1), ("a", 1), ("c", 2)):
        driver.do("join", worker=worker, capacity=capacity, ttl_ms=100)
    placed = [driver.do("submit", task=f"t{n}")["worker"] for n in range(5)]
    assert placed == ["c", "a", "b", "c", None]


def test_what_a_lost_worker_had_goes_back_to_its_old_place() -> None:
    driver = Driver(Scheduler)
    driver.do("join", worker="a", capacity=2, ttl_ms=10)
    for number in range(4):
        driver.do("submit", task=f"t{number}", payload=number)
    assert [work["task"] for work in driver.do("claim", worker="a")] == ["t0", "t1"]
    driver.clock_ms += 10
    driver.do("join", worker="b", capacity=3, ttl_ms=10)
    works = driver.do("claim", worker="b")
    assert [(work["task"], work["attempt"]) for work in works] == [("t0", 2), ("t1", 2), ("t2", 1)]
    late = driver.do("complete", worker="a", task="t0", attempt=1, result="late")
    assert "does not run" in late["refused"]
    driver.do("complete", worker="b", task="t0", attempt=2, result="good")
    assert driver.ask("status", task="t0")["result"] == "good"
    assert states(driver, "t3") == [("assigned", "b")]


def test_a_task_can_be_cancelled_in_every_state() -> None:
    driver = Driver(Scheduler)
    driver.do("join", worker="a", capacity=1, ttl_ms=100)
    for number in range(3):
        driver.do("submit", task=f"t{number}")
    driver.do("claim", worker="a")
    assert driver.do("cancel", task="t2") == {"state": "pending"}
    assert driver.do("cancel", task="t0") == {"state": "running"}
    assert states(driver, "t1") == [("assigned", "a")]
    assert driver.do("cancel", task="t1") == {"state": "assigned"}
    assert driver.do("cancel", task="t1") == {"state": None}
    driver.do("submit", task="t3")
    [work] = driver.do("claim", worker="a")
    driver.do("complete", worker="a", task="t3", attempt=work["attempt"])
    assert driver.do("cancel", task="t3") == {"state": "done"}
    driver.restart()
    assert sum(driver.ask("totals").values()) == 0


def test_only_the_newest_results_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statemachines.scheduler, "FINISHED_MAX", 2)
    driver = Driver(Scheduler)
    driver.do("join", worker="a", capacity=1, ttl_ms=100)
    for number in range(4):
        driver.do("submit", task=f"t{number}")
        [work] = driver.do("claim", worker="a")
        driver.do("complete", worker="a", task=work["task"], attempt=1)
    assert driver.ask("status", task="t1") is None
    assert states(driver, "t2", "t3") == [("done", None), ("done", None)]
    driver.restart()


def test_bounds_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statemachines.scheduler, "TASKS_MAX", 1)
    monkeypatch.setattr(statemachines.scheduler, "WORKERS_MAX", 1)
    driver = Driver(Scheduler)
    driver.do("submit", task="t0")
    assert "1 tasks" in driver.do("submit", task="t1")["refused"]
    driver.do("join", worker="a", capacity=1, ttl_ms=10)
    assert "1 workers" in driver.do("join", worker="b", capacity=1, ttl_ms=10)["refused"]
