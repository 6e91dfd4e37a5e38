"""Sessions: a command repeated at any time, in any order, has one effect and one answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import statemachines.sessions
from consensus import Applied, Entry, Handle, Node, OutcomeUnknown, ProposalDropped, Refused
from consensus.engines.local import LocalEngine
from statemachines import Counter, Queue, Session, SessionEnded, SessionMachine, session_client
from statemachines.sessions import encode_close, encode_open, encode_plain, encode_run
from tests.statemachines.driver import Driver, refused


def make() -> SessionMachine:
    return SessionMachine(Queue())


def push(item: Any) -> bytes:
    return Queue.encode("push", item=item)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_repetitions_in_any_order_have_one_effect_and_the_first_answer(data: st.DataObject) -> None:
    driver = Driver(make)
    alone = Queue()  # gets each command once, in the order of first arrival
    sessions = [driver.apply(encode_open())["session"] for _ in range(2)]
    answers: dict[tuple[int, int], Any] = {}
    arrivals = st.tuples(st.sampled_from(sessions), st.integers(1, 6))
    for session, sequence in data.draw(st.lists(arrivals, max_size=40)):
        command = push([session, sequence]) if sequence % 3 else Queue.encode("pop")
        answer = driver.apply(encode_run(session, sequence, 1, command))
        if (session, sequence) not in answers:
            alone_answer = alone.apply(Entry(1, 1, driver.clock_ms, command))
            answers[session, sequence] = {"answer": alone_answer}
        assert answer == answers[session, sequence]
        if data.draw(st.booleans()):
            driver.restart()
    assert isinstance(driver.machine, SessionMachine)
    assert driver.machine.inner.state_hash() == alone.state_hash()


def test_what_was_acknowledged_is_forgotten_and_never_run_again() -> None:
    driver = Driver(make)
    session = driver.apply(encode_open())["session"]
    driver.apply(encode_run(session, 1, 1, push("a")))
    driver.apply(encode_run(session, 2, 2, push("b")))
    again = driver.apply(encode_run(session, 1, 1, push("a")))
    assert "acknowledged" in again["refused"]
    assert driver.ask("size")["free"] == 2


def test_a_late_copy_from_a_client_that_gave_up_is_not_run() -> None:
    driver = Driver(make)
    session = driver.apply(encode_open())["session"]
    driver.apply(encode_run(session, 2, 2, push("b")))  # 1 was given up before it arrived
    assert refused(driver.apply(encode_run(session, 1, 1, push("a"))))
    assert driver.ask("size")["free"] == 1


def test_a_refusal_of_the_wrapped_machine_is_its_answer_too() -> None:
    driver = Driver(make)
    session = driver.apply(encode_open())["session"]
    ack = Queue.encode("ack", id=1, receipt=1)
    first = driver.apply(encode_run(session, 1, 1, ack))
    assert refused(first["answer"])
    driver.apply(encode_plain(push("a")))
    driver.apply(encode_plain(Queue.encode("claim", worker="w", visibility_ms=1000)))
    assert driver.apply(encode_run(session, 1, 1, ack)) == first


def test_a_silent_session_ends_and_a_used_one_lives_on() -> None:
    driver = Driver(make)
    silent = driver.apply(encode_open(ttl_ms=10))["session"]
    used = driver.apply(encode_open(ttl_ms=10))["session"]
    driver.clock_ms += 9
    driver.apply(encode_run(used, 1, 1, push("a")))
    driver.restart()
    driver.clock_ms += 9
    assert driver.apply(encode_run(silent, 1, 1, push("b"))) == {"session_ended": silent}
    assert "answer" in driver.apply(encode_run(used, 1, 1, push("a")))
    assert driver.apply(encode_close(used)) == {"closed": True}
    assert driver.apply(encode_close(used)) == {"closed": False}
    assert driver.apply(encode_run(used, 1, 1, push("a"))) == {"session_ended": used}
    assert driver.ask("size")["free"] == 1


def test_bounds_refuse_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statemachines.sessions, "SESSIONS_MAX", 2)
    monkeypatch.setattr(statemachines.sessions, "ANSWERS_MAX", 2)
    driver = Driver(make)
    session = driver.apply(encode_open())["session"]
    driver.apply(encode_open())
    assert "2 sessions are open" in driver.apply(encode_open())["refused"]
    driver.apply(encode_run(session, 1, 1, push(1)))
    driver.apply(encode_run(session, 2, 1, push(2)))
    assert "not acknowledged" in driver.apply(encode_run(session, 3, 1, push(3)))["refused"]
    assert "answer" in driver.apply(encode_run(session, 3, 2, push(3)))
    monkeypatch.setattr(statemachines.sessions, "ANSWERS_MAX", 256)
    monkeypatch.setattr(statemachines.sessions, "SESSION_BYTES_MAX", 18)
    assert "18 bytes" in driver.apply(encode_run(session, 4, 2, push(4)))["refused"]
    monkeypatch.setattr(statemachines.sessions, "SESSION_BYTES_MAX", 1000)
    monkeypatch.setattr(statemachines.sessions, "TOTAL_BYTES_MAX", 18)
    assert "all sessions" in driver.apply(encode_run(session, 4, 2, push(4)))["refused"]
    assert "answer" in driver.apply(encode_run(session, 4, 4, push(4)))


@pytest.mark.parametrize("command", [b"", b"x" * 24, bytes(25), b"\xff" * 25, encode_open(0)])
def test_what_is_no_session_command_is_refused(command: bytes) -> None:
    assert refused(Driver(make).apply(command))


def test_a_damaged_snapshot_is_refused_in_words() -> None:
    for data in (b"", b"[]\n", b'["SessionMachine",1,2]\n[]\n', b"\x00\n"):
        with pytest.raises(ValueError, match=r"snapshot"):
            make().restore(data)


class LossyNode(Node):
    """A node whose answers get lost, with the command or after it, as a network would."""

    def __init__(self, machine: SessionMachine, seed: int) -> None:
        super().__init__(machine, LocalEngine())
        self.random = random.Random(seed)
        self.losses = 0

    async def propose(self, command: bytes, timeout_s: float = 1.0) -> Applied:
        fate = self.random.choice(["fine", "lost after", "lost before", "dropped"])
        if fate == "dropped":
            raise ProposalDropped("no leader")
        if fate == "lost before":
            self.losses += 1
            raise OutcomeUnknown("lost")
        applied = await super().propose(command, timeout_s)
        if fate == "lost after":
            self.losses += 1
            raise OutcomeUnknown("lost")
        return applied


async def test_a_session_counts_once_over_a_network_that_loses_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_client, "RETRY_S", 0.0005)
    async with LossyNode(SessionMachine(Counter()), seed=7) as node, Session(node) as session:
        counter = Handle(session, Counter)
        totals = [await counter.add(amount=1) for _ in range(100)]
        assert totals == list(range(1, 101))
        assert await counter.read() == 100
        assert node.losses > 50
        with pytest.raises(Refused, match="amount"):
            await counter.add(amount="one")


async def test_without_a_session_the_same_network_makes_commands_count_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: the test above would not pass by itself."""
    monkeypatch.setattr(session_client, "RETRY_S", 0.0005)
    async with LossyNode(SessionMachine(Counter()), seed=7) as node:
        for _ in range(100):
            while True:
                try:
                    await node.propose(encode_plain(Counter.encode("add", amount=1)))
                    break
                except (OutcomeUnknown, ProposalDropped):
                    continue
        assert await node.query(Counter.encode("read")) > 100


async def test_a_session_that_ended_says_that_the_command_was_not_applied() -> None:
    async with Node(SessionMachine(Counter()), LocalEngine()) as node:
        session = Session(node)
        with pytest.raises(SessionEnded):
            await Handle(session, Counter).add()
        await session.open()
        await node.propose(encode_close(1))
        with pytest.raises(SessionEnded, match="open another"):
            await Handle(session, Counter).add()
        assert await Handle(session, Counter).read() == 0


def test_a_durable_machine_cannot_be_wrapped() -> None:
    class Durable(Counter):
        def position(self) -> Any:
            return None

    with pytest.raises(TypeError, match="machines in memory"):
        SessionMachine(Durable())
