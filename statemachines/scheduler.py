"""Application scheduling: tasks are placed on workers, and placed anew when a worker is lost.

Life of a task: pending -> assigned (the scheduler chose a worker) -> running (the worker claimed
it) -> done or failed. A worker lives as long as it sends heartbeats or claims; when it stops, what
it had goes back to its old place in the line. Each claim has an attempt number, and only the worker
and attempt that run a task may finish it: the result of a worker that was thought dead is refused.
"""

from __future__ import annotations

import heapq
import json
from bisect import bisect_left, insort
from typing import Any, Final

import attrs

from consensus import Refused, command, query
from statemachines.checks import check_integer, check_text, check_ttl_ms, check_value
from statemachines.timed import Key, TimedMachine

TASKS_MAX: Final = 10_000
"""Tasks that are not finished."""

FINISHED_MAX: Final = 1_000
"""Finished tasks whose results are kept; then the oldest is forgotten."""

WORKERS_MAX: Final = 1_000
"""Workers at one time."""

CAPACITY_MAX: Final = 1_000
"""Tasks that one worker may have at one time."""

ATTEMPTS_MAX: Final = 100
"""Most attempts that a task may be given."""

VALUE_BYTES_MAX: Final = 16 * 1024
"""Largest payload or result, in bytes of JSON."""


@attrs.frozen(slots=True)
class Worker:
    """A worker, how many tasks it takes at once, and until when it counts as alive."""

    capacity: int
    ttl_ms: int
    expires_ms: int


@attrs.frozen(slots=True)
class Task:
    """A task; ``number`` is its place in the line, ``attempt`` how often it was started."""

    number: int
    payload: str
    attempts_max: int
    state: str = "pending"
    worker: str = ""
    attempt: int = 0
    result: str = "null"


class Scheduler(TimedMachine):
    """A scheduler of tasks over workers that come and go.

    ::

        async with Node(Scheduler(), engine) as node:
            scheduler = Handle(node, Scheduler)
            await scheduler.join(worker="w1", capacity=2, ttl_ms=10_000)
            await scheduler.submit(task="thumbnails", payload={"album": 7})
            for work in await scheduler.claim(worker="w1"):  # also a heartbeat
                await scheduler.complete(
                    worker="w1", task=work["task"], attempt=work["attempt"], result="ok"
                )

    Guarantees: placement is the same on every member: the oldest pending task goes to the worker
    with most room, by name among equals. At one index a task has one worker. Each task is
    *recorded* as done once; it may have been *started* more than once, when a worker was slow or
    lost, so its effects outside should be idempotent or check the attempt number.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Become as new."""
        super().reset()
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, Task] = {}
        self._pending: list[tuple[int, str]] = []
        self._of_worker: dict[str, list[tuple[int, str]]] = {}
        self._finished: list[str] = []
        self._last_number = 0

    # -- workers ------------------------------------------------------------------------------

    @command
    def join(self, worker: str, capacity: int, ttl_ms: int) -> dict[str, int]:
        """Offer to run up to ``capacity`` tasks at once; again, to change capacity or ``ttl_ms``.

        Returns:
            ``expires_ms``: when the worker counts as lost unless it is heard of before.
        """
        check_text("worker", worker)
        check_integer("capacity", capacity, 1, CAPACITY_MAX)
        check_ttl_ms("ttl_ms", ttl_ms)
        if worker not in self._workers and len(self._workers) >= WORKERS_MAX:
            raise Refused(f"there are {WORKERS_MAX} workers already")
        self._set_worker(worker, Worker(capacity, ttl_ms, self.entry.clock_ms + ttl_ms))
        self._of_worker.setdefault(worker, [])
        self._place()
        return {"expires_ms": self._workers[worker].expires_ms}

    @command
    def heartbeat(self, worker: str) -> dict[str, int]:
        """Say that the worker lives.

        Returns:
            ``expires_ms``, and how many of its tasks wait to be claimed (``assigned``).
        """
        self._renew(worker)
        assigned = sum(self._tasks[name].state == "assigned" for _, name in self._of_worker[worker])
        return {"expires_ms": self._workers[worker].expires_ms, "assigned": assigned}

    @command
    def leave(self, worker: str) -> dict[str, int]:
        """Stop taking part; returns how many tasks were ``returned`` to the line."""
        if check_text("worker", worker) not in self._workers:
            raise Refused(f"there is no worker {worker!r}; it may have been lost")
        self.deadlines.cancel((worker,))
        return {"returned": self._lose(worker)}

    @command
    def claim(self, worker: str) -> list[dict[str, Any]]:
        """Start every task that is assigned to ``worker``; counts as a heartbeat.

        Returns:
            a list of ``task``, ``payload`` and ``attempt``, the oldest first.
        """
        self._renew(worker)
        started = []
        for _, name in self._of_worker[worker]:
            task = self._tasks[name]
            if task.state == "assigned":
                task = attrs.evolve(task, state="running", attempt=task.attempt + 1)
                self._tasks[name] = task
                payload = json.loads(task.payload)
                started.append({"task": name, "payload": payload, "attempt": task.attempt})
        return started

    @command
    def complete(self, worker: str, task: str, attempt: int, result: Any = None) -> dict[str, Any]:
        """Record a task as done. Refused unless this worker's attempt is the one that runs."""
        text = check_value("result", result, VALUE_BYTES_MAX)
        running = self._running(worker, task, attempt)
        self._unassign(running, task)
        self._record(running, task, "done", text)
        self._place()
        return {"task": task, "state": "done"}

    @command
    def fail(self, worker: str, task: str, attempt: int, reason: Any = None) -> dict[str, Any]:
        """Say that an attempt failed; the task is tried again until its attempts are used up.

        Returns:
            ``state``: "pending" or "assigned" when it is tried again, "failed" when not.
        """
        text = check_value("reason", reason, VALUE_BYTES_MAX)
        running = self._running(worker, task, attempt)
        self._unassign(running, task)
        self._retry(attrs.evolve(running, result=text), task)
        self._place()
        return {"task": task, "state": self._tasks[task].state}

    # -- users --------------------------------------------------------------------------------

    @command
    def submit(self, task: str, payload: Any = None, attempts_max: int = 3) -> dict[str, Any]:
        """Put a task in the line. Submitting the same again returns what became of it.

        Args:
            task: its name, chosen by the caller and not used before.
            payload: JSON for the worker.
            attempts_max: how often it may be started, at most ``ATTEMPTS_MAX``.
        """
        check_text("task", task)
        text = check_value("payload", payload, VALUE_BYTES_MAX)
        check_integer("attempts_max", attempts_max, 1, ATTEMPTS_MAX)
        known = self._tasks.get(task)
        if known is not None:
            if (known.payload, known.attempts_max) != (text, attempts_max):
                raise Refused(f"task {task!r} exists with other content; choose another name")
            return self._describe(task)
        if len(self._tasks) - len(self._finished) >= TASKS_MAX:
            raise Refused(f"{TASKS_MAX} tasks wait or run already; try again later")
        self._last_number += 1
        self._tasks[task] = Task(self._last_number, text, attempts_max)
        self._pending.append((self._last_number, task))
        self._place()
        return self._describe(task)

    @command
    def cancel(self, task: str) -> dict[str, Any]:
        """Forget a task, whatever its state; returns ``state`` as it was, None if not known."""
        known = self._tasks.get(check_text("task", task))
        if known is None:
            return {"state": None}
        if known.worker:
            self._unassign(known, task)
        elif known.state == "pending":
            del self._pending[bisect_left(self._pending, (known.number, task))]
        else:
            self._finished.remove(task)
        del self._tasks[task]
        self._place()
        return {"state": known.state}

    @query
    def status(self, task: str) -> dict[str, Any] | None:
        """Return ``task``, ``state``, ``worker``, ``attempt`` and ``result``; None if not known."""
        return self._describe(task) if check_text("task", task) in self._tasks else None

    @query
    def workers(self) -> list[dict[str, Any]]:
        """Return each worker's name, ``capacity`` and ``tasks``, by name."""
        return [
            {
                "worker": name,
                "capacity": worker.capacity,
                "tasks": [task for _, task in self._of_worker[name]],
            }
            for name, worker in sorted(self._workers.items())
        ]

    @query
    def totals(self) -> dict[str, int]:
        """Return how many tasks are in each state."""
        totals = dict.fromkeys(("pending", "assigned", "running", "done", "failed"), 0)
        for task in self._tasks.values():
            totals[task.state] += 1
        return totals

    def lapse(self, key: Key, now_ms: int) -> None:
        """A worker was not heard of in time."""
        self._lose(key[0])

    # -- snapshot -----------------------------------------------------------------------------

    def dump_rows(self) -> list[Any]:
        """The last number and the finished tasks in order, each worker, then each task."""
        return [
            [self._last_number, list(self._finished), len(self._workers)],
            *sorted(self._workers.items()),
            *sorted(self._tasks.items()),
        ]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the rows."""
        self.reset()
        self._last_number, self._finished, workers = rows[0]
        for name, fields in rows[1 : workers + 1]:
            self._set_worker(name, Worker(*fields))
            self._of_worker[name] = []
        for name, fields in rows[workers + 1 :]:
            task = Task(*fields)
            self._tasks[name] = task
            if task.worker:
                insort(self._of_worker[task.worker], (task.number, name))
            elif task.state == "pending":
                insort(self._pending, (task.number, name))

    # -- inside -------------------------------------------------------------------------------

    def _place(self) -> None:
        """Give pending tasks to workers with room: the oldest task, the most room, then by name."""
        if not self._pending:
            return
        room = [
            (len(self._of_worker[name]) - worker.capacity, name)
            for name, worker in self._workers.items()
            if len(self._of_worker[name]) < worker.capacity
        ]
        heapq.heapify(room)
        placed = 0
        while room and placed < len(self._pending):
            taken, worker = heapq.heappop(room)
            number, name = self._pending[placed]
            placed += 1
            self._tasks[name] = attrs.evolve(self._tasks[name], state="assigned", worker=worker)
            insort(self._of_worker[worker], (number, name))
            if taken + 1 < 0:
                heapq.heappush(room, (taken + 1, worker))
        del self._pending[:placed]

    def _lose(self, worker: str) -> int:
        """A worker is gone: its tasks go back to their places, or fail after their last attempt."""
        del self._workers[worker]
        held = self._of_worker.pop(worker)
        for _, name in held:
            self._retry(self._tasks[name], name)
        self._place()
        return len(held)

    def _retry(self, task: Task, name: str) -> None:
        if task.attempt >= task.attempts_max:
            self._record(task, name, "failed", task.result)
        else:
            self._tasks[name] = attrs.evolve(task, state="pending", worker="")
            insort(self._pending, (task.number, name))

    def _record(self, task: Task, name: str, state: str, result: str) -> None:
        self._tasks[name] = attrs.evolve(task, state=state, worker="", result=result)
        self._finished.append(name)
        if len(self._finished) > FINISHED_MAX:
            del self._tasks[self._finished.pop(0)]

    def _unassign(self, task: Task, name: str) -> None:
        held = self._of_worker[task.worker]
        del held[bisect_left(held, (task.number, name))]

    def _running(self, worker: Any, name: Any, attempt: Any) -> Task:
        check_text("worker", worker)
        check_text("task", name)
        check_integer("attempt", attempt, 1, ATTEMPTS_MAX)
        task = self._tasks.get(name)
        if task is None:
            raise Refused(f"there is no task {name!r}")
        if (task.state, task.worker, task.attempt) != ("running", worker, attempt):
            raise Refused(
                f"attempt {attempt} of task {name!r} on {worker!r} does not run: "
                f"the task is {task.state}, attempt {task.attempt}, on {task.worker or 'no worker'}"
            )
        return task

    def _renew(self, name: Any) -> None:
        worker = self._workers.get(check_text("worker", name))
        if worker is None:
            raise Refused(f"there is no worker {name!r}; it may have been lost: join again")
        expires_ms = self.entry.clock_ms + worker.ttl_ms
        self._set_worker(name, attrs.evolve(worker, expires_ms=expires_ms))

    def _set_worker(self, name: str, worker: Worker) -> None:
        self._workers[name] = worker
        self.deadlines.set((name,), worker.expires_ms)

    def _describe(self, name: str) -> dict[str, Any]:
        task = self._tasks[name]
        return {
            "task": name,
            "state": task.state,
            "worker": task.worker or None,
            "attempt": task.attempt,
            "result": json.loads(task.result),
        }
