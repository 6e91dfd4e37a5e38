"""Exactly once: a command that its client repeats has one effect and one answer.

A client that got no answer does not know whether its command was applied (``OutcomeUnknown``), so
it must either give up or send it again, and then it may count twice. Ongaro's thesis, section 6.3,
has the remedy: each client opens a session, numbers its commands, and the machine keeps each answer
until the client says that it has it. A command whose number was answered is answered again, not run
again.

``SessionMachine`` is the replicated half, around any machine in memory. The client's half, which
numbers and repeats, is ``statemachines.session_client``.

A command on the wire is one byte that says its kind and three unsigned 64-bit numbers, big-endian;
then, for ``run`` and ``plain``, the wrapped machine's own command. ``run`` has the session's id,
the command's sequence, and the lowest sequence whose answer the client still needs.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from consensus import Entry, Position, Refused, StateMachine, StateSnapshot
from consensus.methods import refusal
from statemachines.checks import TTL_MS_MAX, check_integer
from statemachines.rows import Rows, RowsSnapshot, read_first
from statemachines.timed import Deadlines

SESSIONS_MAX: Final = 10_000
"""Sessions open at one time."""

ANSWERS_MAX: Final = 256
"""Answers kept for one session: how many commands a client may have under way."""

SESSION_BYTES_MAX: Final = 1024 * 1024
"""Answers kept for one session, in bytes of JSON; when reached, it runs no further command."""

TOTAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Answers kept for all sessions, in bytes of JSON; when reached, none runs a further command."""

SESSION_TTL_MS: Final = 10 * 60 * 1000
"""How long a session lives after its last command, unless it was opened with another time."""

_HEAD: Final = struct.Struct(">BQQQ")
_OPEN, _RUN, _CLOSE, _PLAIN = range(1, 5)


def encode_open(ttl_ms: int = SESSION_TTL_MS) -> bytes:
    """Return the command that opens a session; its result is ``{"session": id}``."""
    return _HEAD.pack(_OPEN, ttl_ms, 0, 0)


def encode_run(session: int, sequence: int, lowest_unanswered: int, command: bytes) -> bytes:
    """Return the command that runs ``command`` once in a session.

    Its result is ``{"answer": ...}`` with what the wrapped machine returned, ``{"session_ended":
    id}`` when there is no such session (any more), or a refusal; after these two it was not run by
    this copy, but an earlier copy may have been, or a later one may be.

    Args:
        session: the id that opening it returned.
        sequence: 1, 2, 3, ...: names the command in its session; the same again means a repetition.
        lowest_unanswered: the client has every answer below this sequence, or gave it up.
        command: the wrapped machine's command.
    """
    return _HEAD.pack(_RUN, session, sequence, lowest_unanswered) + command


def encode_close(session: int) -> bytes:
    """Return the command that ends a session."""
    return _HEAD.pack(_CLOSE, session, 0, 0)


def encode_plain(command: bytes) -> bytes:
    """Return ``command`` without a session: run each time it is committed, as without sessions."""
    return _HEAD.pack(_PLAIN, 0, 0, 0) + command


@attrs.define(slots=True)
class _Table:
    """One session: its time to live, what is acknowledged, and the answers kept, as JSON text."""

    ttl_ms: int
    expires_ms: int
    lowest_unanswered: int = 1
    answers: dict[int, str] = attrs.field(factory=dict)
    size: int = 0

    def acknowledge(self, lowest_unanswered: int) -> None:
        """Forget the answers that the client has."""
        if lowest_unanswered <= self.lowest_unanswered:
            return
        self.lowest_unanswered = lowest_unanswered
        for sequence in [number for number in self.answers if number < lowest_unanswered]:
            self.size -= len(self.answers.pop(sequence))

    def keep(self, sequence: int, answer: str) -> None:
        """Keep an answer until it is acknowledged."""
        self.answers[sequence] = answer
        self.size += len(answer)


class _SessionSnapshot(StateSnapshot):
    """The sessions, one line each, then the wrapped machine's own snapshot."""

    def __init__(self, sessions: StateSnapshot, inner: StateSnapshot) -> None:
        self._sessions = sessions
        self._inner = inner

    def chunks(self) -> Iterator[bytes]:
        """Yield the pieces of both."""
        yield from self._sessions.chunks()
        yield from self._inner.chunks()

    def release(self) -> None:
        """Release both."""
        self._sessions.release()
        self._inner.release()


class SessionMachine(StateMachine):
    """Any machine in memory, with sessions around it.

    ::

        async with Node(SessionMachine(Counter()), engine) as node:
            async with Session(node) as session:
                counter = Handle(session, Counter)
                await counter.add(amount=1)  # counts once, however often it had to be sent

    Guarantees: a command of a session is run at most once, and every repetition gets the first
    answer, until the client acknowledges it or the session ends. A session ends when it was silent
    for its time to live; then its commands are refused, and what was under way stays unknown.
    Queries go to the wrapped machine as they are.

    Results of the wrapped machine must be what JSON can say (a tuple comes back as a list).

    Args:
        inner: the machine; from now on only the wrapper calls it.

    Raises:
        TypeError: ``inner`` is durable: its position cannot move together with the sessions.
    """

    def __init__(self, inner: StateMachine) -> None:
        if type(inner).position is not StateMachine.position:
            raise TypeError(
                f"{type(inner).__name__} keeps its state on disk; "
                "SessionMachine wraps machines in memory only"
            )
        self.inner = inner
        self._size = 0
        self._sessions: dict[int, _Table] = {}
        self._deadlines = Deadlines()

    def apply(self, entry: Entry) -> Any:
        """End the sessions whose time is up, then do what the command says."""
        for key in self._deadlines.pop_due(entry.clock_ms):
            self._end(int(key[0]))
        if len(entry.command) < _HEAD.size:
            return refusal("not a session command: see statemachines.sessions.encode_run")
        kind, first, second, third = _HEAD.unpack_from(entry.command)
        try:
            if kind == _OPEN:
                return self._open(entry, first)
            if kind == _RUN:
                return self._run(entry, first, second, third)
            if kind == _CLOSE:
                self._deadlines.cancel(_key(first))
                return {"closed": self._end(first)}
            if kind == _PLAIN:
                return self._inner_apply(entry)
        except Refused as error:
            return refusal(str(error))
        return refusal(f"not a session command: kind {kind} is none of 1 to 4")

    def query(self, request: Any) -> Any:
        """Ask the wrapped machine."""
        return self.inner.query(request)

    def snapshot(self) -> StateSnapshot:
        """Freeze the sessions and the wrapped machine."""
        table = {
            session: (each.ttl_ms, each.expires_ms, each.lowest_unanswered, dict(each.answers))
            for session, each in self._sessions.items()
        }
        sessions = RowsSnapshot(type(self).__name__, Rows.of(None, table))
        return _SessionSnapshot(sessions, self.inner.snapshot())

    def restore(self, data: bytes) -> None:
        """Load what ``snapshot`` wrote."""
        for _ in self.restore_steps([data], Position()):
            pass

    def restore_steps(self, chunks: Iterable[bytes], position: Position) -> Iterator[None]:
        """Load the sessions, then the wrapped machine in its own steps.

        Raises:
            ValueError: this is no snapshot of a session machine.
        """
        source = iter(chunks)
        lines: list[bytes] = []
        rest = b""
        count = 1  # lines to read before the wrapped machine's part; the first one says how many
        while len(lines) < count:
            *more, rest = rest.split(b"\n", count - len(lines))
            lines += more
            if count == 1 and lines:
                count += read_first(type(self).__name__, lines[0])[0]
            elif len(lines) < count:
                piece = next(source, None)
                if piece is None:
                    raise ValueError("the snapshot ends inside its table of sessions")
                rest += piece
                yield
        rows = [json.loads(line) for line in lines[1:]]
        yield from self.inner.restore_steps(itertools.chain([rest], source), position)
        self._load(rows)

    def close(self) -> None:
        """Close the wrapped machine."""
        self.inner.close()

    # -- inside -------------------------------------------------------------------------------

    def _load(self, rows: list[Any]) -> None:
        self._size = 0
        self._sessions.clear()
        self._deadlines = Deadlines()
        for session, (ttl_ms, expires_ms, lowest, answers) in rows:
            table = _Table(ttl_ms, expires_ms, lowest)
            for sequence, answer in answers.items():
                table.keep(int(sequence), answer)
            self._size += table.size
            self._sessions[session] = table
            self._deadlines.set(_key(session), expires_ms)

    def _end(self, session: int) -> bool:
        table = self._sessions.pop(session, None)
        if table is None:
            return False
        self._size -= table.size
        return True

    def _open(self, entry: Entry, ttl_ms: int) -> dict[str, int]:
        check_integer("ttl_ms", ttl_ms, 1, TTL_MS_MAX)
        if len(self._sessions) >= SESSIONS_MAX:
            raise Refused(f"{SESSIONS_MAX} sessions are open; close some, or wait for their end")
        self._sessions[entry.index] = _Table(ttl_ms, entry.clock_ms + ttl_ms)
        self._deadlines.set(_key(entry.index), entry.clock_ms + ttl_ms)
        return {"session": entry.index}

    def _run(self, entry: Entry, session: int, sequence: int, lowest_unanswered: int) -> Any:
        table = self._sessions.get(session)
        if table is None:
            return {"session_ended": session}
        table.expires_ms = entry.clock_ms + table.ttl_ms
        self._deadlines.set(_key(session), table.expires_ms)
        self._size -= table.size
        try:
            table.acknowledge(min(lowest_unanswered, sequence))
            if sequence not in table.answers:
                self._check_room(session, sequence, table)
                table.keep(sequence, json.dumps(self._inner_apply(entry)))
        finally:
            self._size += table.size
        return {"answer": json.loads(table.answers[sequence])}

    def _check_room(self, session: int, sequence: int, table: _Table) -> None:
        if sequence < table.lowest_unanswered:
            raise Refused(f"command {sequence} of session {session} was acknowledged before")
        if len(table.answers) >= ANSWERS_MAX or table.size >= SESSION_BYTES_MAX:
            raise Refused(
                f"session {session} has {len(table.answers)} answers of {table.size} bytes that "
                "its client has not acknowledged; wait for some before sending more"
            )
        if self._size + table.size >= TOTAL_BYTES_MAX:
            raise Refused(f"all sessions together keep {TOTAL_BYTES_MAX} bytes; try again later")

    def _inner_apply(self, entry: Entry) -> Any:
        return self.inner.apply(entry._replace(command=entry.command[_HEAD.size :]))


def _key(session: int) -> tuple[str]:
    return (f"{session:020d}",)
