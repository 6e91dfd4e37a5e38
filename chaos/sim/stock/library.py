"""One member of unmodified PySyncObj, on a clock, links and a life that a simulation decides.

Nothing of the library's own logic is replaced. In the place of the world outside it is given:

* its clock, its random numbers, its poller and its wake-up by a pipe, by the names it has for them;
* its transport, through its own parameter for one: links in order, messages pickled as on its wire;
* its journal, dump and meta files are its own code on real files; each write to the journal may be
  the last thing that its process does. Processes are killed, machines never lose power: what was
  written stays. That is the mildest fault there is for a library that never syncs.
"""

from __future__ import annotations

import logging
import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from pysyncobj import syncobj
from pysyncobj.config import FAIL_REASON, SyncObjConf
from pysyncobj.journal import FileJournal
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj, SyncObjConsumer, replicated
from pysyncobj.transport import Transport

POISON: Final = b"poison"
"""A command that begins so makes the machine raise, as an application's defect would."""

_CERTAINLY_NOT: Final = frozenset(
    {
        FAIL_REASON.QUEUE_FULL,
        FAIL_REASON.MISSING_LEADER,
        FAIL_REASON.REQUEST_DENIED,
        FAIL_REASON.DISCARDED,
        FAIL_REASON.NOT_LEADER,
    }
)


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """What a user of PySyncObj sets, and a seed draws.

    Args:
        dump: whether there is a file for snapshots; without one they are kept in memory.
        batch: ``appendEntriesUseBatch``.
        compaction_entries: ``logCompactionMinEntries``.
        batch_bytes: ``appendEntriesBatchSizeBytes``, small so that a log is sent in parts.
    """

    dump: bool = True
    batch: bool = True
    compaction_entries: int = 200
    batch_bytes: int = 65_536


class Machine(SyncObjConsumer):  # type: ignore[misc]
    """The replicated state: every command applied, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[bytes] = []

    @replicated  # type: ignore[untyped-decorator]
    def apply(self, command: bytes) -> int:
        """Append a command; return its number."""
        if command.startswith(POISON):
            raise ValueError("the application cannot apply this command")
        self.commands.append(command)
        return len(self.commands)


class _Peer(Node):  # type: ignore[misc]
    """A member's name. Its hash is a number, so that sets have one order in every process."""

    def __hash__(self) -> int:
        return int(self.id[1:])


class _Links(Transport):  # type: ignore[misc]
    """Links that the simulation carries."""

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        super().__init__(None, None, [])
        self._send = send
        self.up: set[str] = set()

    @property
    def ready(self) -> bool:
        """Always."""
        return True

    def send(self, node: Node, message: Any) -> bool:
        """Send a message as bytes; False where the link is down."""
        if node.id not in self.up:
            return False
        self._send(node.id, pickle.dumps(message, 2))
        return True

    def connected(self, peer: str) -> None:
        """A link came up."""
        self.up.add(peer)
        self._onNodeConnected(_Peer(peer))

    def disconnected(self, peer: str) -> None:
        """A link went down; what was under way is lost."""
        self.up.discard(peer)
        self._onNodeDisconnected(_Peer(peer))

    def received(self, peer: str, payload: bytes) -> None:
        """A message arrived."""
        self._onMessageReceived(_Peer(peer), pickle.loads(payload))


class _Journal(FileJournal):  # type: ignore[misc]
    """The library's journal; each record may be the last."""

    def __init__(self, path: str, operation: Callable[[], None]) -> None:
        self._operation: Callable[[], None] = lambda: None
        super().__init__(path)
        self._operation = operation

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Write a record, if the process lives so long."""
        self._operation()
        super().add(command, idx, term)


class _Poller:
    """Nothing to wait for: messages come when the simulation says so."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


class Instance:
    """One life of one member.

    Args:
        name: "n1", "n2", ...
        others: the other members' names.
        directory: its files.
        send: called with a receiver and a message.
        operation: called before each record is written; may raise to end this life.
    """

    def __init__(
        self,
        name: str,
        others: Sequence[str],
        directory: Path,
        settings: Settings,
        send: Callable[[str, bytes], None],
        operation: Callable[[], None],
    ) -> None:
        self.machine = Machine()
        self.links = _Links(send)
        self._journals: list[_Journal] = []
        configuration = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=settings.batch,
            appendEntriesBatchSizeBytes=settings.batch_bytes,
            journalFile=str(directory / "journal"),
            fullDumpFile=str(directory / "dump") if settings.dump else None,
            logCompactionMinEntries=settings.compaction_entries,
            useFork=False,
            commandsWaitLeader=False,
        )

        def journal(path: str) -> _Journal:
            self._journals.append(_Journal(path, operation))
            return self._journals[-1]

        syncobj.createJournal = journal
        self._raft = SyncObj(
            _Peer(name),
            [_Peer(other) for other in others],
            configuration,
            consumers=[self.machine],
            transport=self.links,
        )

    def tick(self) -> None:
        """Let the library do what is due."""
        self._raft.doTick(0.0)

    def propose(self, command: bytes, done: Callable[[str], None]) -> None:
        """Propose; ``done`` gets "applied", "dropped" or "unknown", if it is called at all."""

        def answered(_: object, error: int) -> None:
            if error == FAIL_REASON.SUCCESS:
                done("applied")
            else:
                done("dropped" if error in _CERTAINLY_NOT else "unknown")

        self.machine.apply(command, callback=answered)

    @property
    def leads(self) -> bool:
        """Whether it thinks that it leads."""
        return bool(self._raft._isLeader())

    @property
    def state(self) -> tuple[int, int, int]:
        """Its term, its commit index, and how far it has applied."""
        raft = self._raft
        return raft.raftCurrentTerm, raft.raftCommitIndex, raft.raftLastApplied

    def close(self) -> None:
        """Let go of the files, as they are."""
        for journal in self._journals:
            journal._destroy()


@contextmanager
def simulated(now_s: Callable[[], float], prng: random.Random) -> Iterator[None]:
    """Give the library this clock and these random numbers; one simulation at a time."""
    names = {
        "monotonicTime": now_s,
        "random": prng,
        "createPoller": lambda kind: _Poller(),
        "createJournal": syncobj.createJournal,
        "PIPE_NOTIFIER_ENABLED": False,
    }
    before = {name: getattr(syncobj, name) for name in names}
    logger = logging.getLogger("pysyncobj")
    level, quiet = logger.level, logging.CRITICAL + 1
    try:
        for name, value in names.items():
            setattr(syncobj, name, value)
        logger.setLevel(quiet)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves files to the collector
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(syncobj, name, value)
