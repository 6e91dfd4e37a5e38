"""Every ready-made machine against the contract suite of state machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from consensus import MethodMachine, StateMachine
from consensus.methods import encode_call
from consensus.testing import StateMachineContract
from statemachines import (
    Counter,
    Elections,
    Locks,
    Map,
    Queue,
    Register,
    Scheduler,
    Semaphores,
    ServiceRegistry,
    SessionMachine,
)
from statemachines.sessions import encode_close, encode_open, encode_plain, encode_run

Call = tuple[str, dict[str, Any]]


class MachineContract(StateMachineContract):
    """The suite for a method machine: its class, calls that change it, and calls that read it."""

    machine: ClassVar[type[MethodMachine]]
    changes: ClassVar[list[Call]]
    reads: ClassVar[list[Call]]

    def make_machine(self, directory: Path) -> StateMachine:
        return self.machine()

    def commands(self) -> list[bytes]:
        return [encode_call(*call) for call in self.changes] + [b"not a call"]

    def queries(self) -> list[Any]:
        return [encode_call(*call) for call in self.reads]


class TestCounter(MachineContract):
    machine = Counter
    changes: ClassVar = [
        ("add", {"amount": 5}),
        ("add", {"amount": -2}),
        ("add", {}),
        ("add", {"amount": "x"}),
        ("add", {"amount": 2**62}),
    ]
    reads: ClassVar = [("read", {})]


class TestRegister(MachineContract):
    machine = Register
    changes: ClassVar = [
        ("write", {"value": {"b": [1, 2.5, None], "a": "é"}}),
        ("compare_and_set", {"expected": {"a": "é", "b": [1, 2.5, None]}, "value": 7}),
        ("compare_and_set", {"expected": 8, "value": 9}),
        ("write", {"value": "x" * 100_000}),
    ]
    reads: ClassVar = [("read", {})]


class TestMap(MachineContract):
    machine = Map
    changes: ClassVar = [
        *[("put", {"key": f"key/{number:03}", "value": "x" * 9000}) for number in range(40)],
        ("compare_and_set", {"key": "key/001", "version": 2, "value": 1}),
        ("compare_and_set", {"key": "key/002", "version": 2, "value": 1}),
        ("delete", {"key": "key/003"}),
        ("delete", {"key": "key/003"}),
        ("put", {"key": "", "value": 1}),
    ]
    reads: ClassVar = [("items", {"prefix": "key/"}), ("get", {"key": "key/001"}), ("size", {})]


class TestQueue(MachineContract):
    machine = Queue
    changes: ClassVar = [
        *[("push", {"item": number}) for number in range(5)],
        ("claim", {"worker": "a", "visibility_ms": 1500}),
        ("claim", {"worker": "b", "visibility_ms": 60_000}),
        ("pop", {}),  # the first claim has ended
        ("ack", {"id": 1, "receipt": 1}),
        ("ack", {"id": 2, "receipt": 2}),
        ("claim", {"worker": "a", "visibility_ms": 60_000}),
        ("extend", {"id": 3, "receipt": 3, "visibility_ms": 90_000}),
    ]
    reads: ClassVar = [("size", {}), ("peek", {})]


class TestLocks(MachineContract):
    machine = Locks
    changes: ClassVar = [
        ("acquire", {"name": "l", "owner": "b", "ttl_ms": 2500}),
        ("acquire", {"name": "l", "owner": "a", "ttl_ms": 9000, "wait_ms": 9000}),
        ("acquire", {"name": "l", "owner": "c", "ttl_ms": 9000, "wait_ms": 9000}),
        ("acquire", {"name": "k", "owner": "c", "ttl_ms": 90_000}),
        ("renew", {"name": "l", "token": 1}),
        ("renew", {"name": "l", "token": 3}),
        ("release", {"name": "l", "token": 3}),
        ("cancel", {"name": "l", "owner": "z"}),
    ]
    reads: ClassVar = [("holder", {"name": "l"}), ("holder", {"name": "k"})]


class TestElections(MachineContract):
    machine = Elections
    changes: ClassVar = [
        ("campaign", {"election": "e", "candidate": "b", "ttl_ms": 9000, "data": {"port": 1}}),
        ("campaign", {"election": "e", "candidate": "a", "ttl_ms": 9000}),
        ("campaign", {"election": "e", "candidate": "c", "ttl_ms": 1000}),
        ("heartbeat", {"election": "e", "term": 1}),
        ("heartbeat", {"election": "e", "term": 9}),
        ("resign", {"election": "e", "term": 1}),
        ("withdraw", {"election": "e", "candidate": "c"}),
    ]
    reads: ClassVar = [("observe", {"election": "e"}), ("next_expiry", {})]


class TestSemaphores(MachineContract):
    machine = Semaphores
    changes: ClassVar = [
        ("configure", {"name": "s", "permits": 3}),
        ("acquire", {"name": "s", "owner": "b", "ttl_ms": 1500, "permits": 2}),
        ("acquire", {"name": "s", "owner": "a", "ttl_ms": 90_000}),
        ("acquire", {"name": "s", "owner": "c", "ttl_ms": 90_000, "permits": 2}),
        ("renew", {"name": "s", "token": 2}),
        ("release", {"name": "s", "token": 1}),
        ("release", {"name": "s", "token": 2}),
    ]
    reads: ClassVar = [("status", {"name": "s"})]


class TestServiceRegistry(MachineContract):
    machine = ServiceRegistry
    changes: ClassVar = [
        ("register", {"service": "web", "instance": "b", "address": "h:1", "ttl_ms": 1500}),
        ("register", {"service": "web", "instance": "a", "address": "h:2", "ttl_ms": 90_000}),
        ("register", {"service": "db", "instance": "a", "address": "h:3", "ttl_ms": 90_000}),
        ("heartbeat", {"service": "web", "instance": "a"}),
        ("heartbeat", {"service": "web", "instance": "b"}),
        ("deregister", {"service": "db", "instance": "a"}),
    ]
    reads: ClassVar = [("discover", {"service": "web"}), ("services", {})]


class TestScheduler(MachineContract):
    machine = Scheduler
    changes: ClassVar = [
        ("join", {"worker": "b", "capacity": 1, "ttl_ms": 4500}),
        ("submit", {"task": "z", "payload": 1}),
        ("submit", {"task": "y", "payload": 2}),
        ("claim", {"worker": "b"}),
        ("join", {"worker": "a", "capacity": 2, "ttl_ms": 90_000}),
        ("claim", {"worker": "a"}),
        ("complete", {"worker": "a", "task": "y", "attempt": 1, "result": [1]}),
        ("heartbeat", {"worker": "a"}),
        ("tick", {}),  # b has been silent
        ("claim", {"worker": "a"}),
        ("fail", {"worker": "a", "task": "z", "attempt": 2, "reason": "no"}),
        ("complete", {"worker": "b", "task": "z", "attempt": 1}),
    ]
    reads: ClassVar = [
        ("status", {"task": "z"}),
        ("status", {"task": "y"}),
        ("workers", {}),
        ("totals", {}),
    ]


class TestSessions(StateMachineContract):
    """Sessions around a queue."""

    def make_machine(self, directory: Path) -> StateMachine:
        return SessionMachine(Queue())

    def commands(self) -> list[bytes]:
        push = [Queue.encode("push", item=number) for number in range(4)]
        return [
            encode_open(),
            encode_open(ttl_ms=2500),
            encode_run(1, 2, 1, push[0]),
            encode_run(1, 1, 1, push[1]),
            encode_run(1, 2, 1, push[0]),
            encode_run(2, 1, 1, push[2]),  # that session has ended
            encode_run(1, 3, 3, push[3]),
            encode_plain(Queue.encode("claim", worker="w", visibility_ms=60_000)),
            encode_run(1, 1, 1, push[1]),
            encode_open(),
            encode_close(1),
            b"not a session command",
        ]

    def queries(self) -> list[Any]:
        return [Queue.encode("size"), Queue.encode("peek")]
