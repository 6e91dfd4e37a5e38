"""A small language for telling a group of cores what to do, and a fixed rendering of what they did.

A trace is a text file of blocks, parted by empty lines. Lines that begin with ``#`` narrate. A
block is one command or more, a line ``----``, and what came of them, which is compared to the
letter (``ok`` where nothing was to be seen). A command after the word ``quietly`` shows nothing:

    propose a x y
    ----
    a -> b  AppendEntries term=1 prev=1/1 entries=[2/1 "x", 3/1 "y"] commit=1
    a syncs [2/1 "x", 3/1 "y"]

Commands (``name`` is a member; ``names`` are several, with commas; settings in brackets may be
left out):

    add-nodes names [learners=names] [outsiders=names] [SETTING=number]
                               begin; settings are those of ``CoreConfig``
    log-of name term=T terms   give a member, before anything else, a log with these terms
    campaign name              stand for election now
    patience                   let every member's election timeout have passed
    propose name commands      append commands at a leader
    forward name number text   forward a command from a follower
    change-membership name voters=names [learners=names]
    transfer name to=name      hand leadership over
    read-index name number     ask for an index that is safe to read at
    tick name [count]          let time pass for one member
    compact name index         a snapshot there is on disk: drop the log up to it
    deliver [FILTER]           deliver what is on the wire now
    drop [FILTER]              lose it
    repeat [FILTER]            deliver it, and leave a copy on the wire
    wire                       show what is on the wire
    stabilize [names]          deliver among these (all) until nothing is under way
    hold names                 these members sync nothing from now on
    persist name               sync what one was asked to
    release names              sync it, and at once again from now on
    cut names / heal           everything to and from these is lost / no longer
    restart name               crash, and come back with what was synced
    status [name]              role, term, vote, indexes; for a leader, what it knows of the others
    log name                   every entry, and how far it is on disk

FILTER is any of ``from=name``, ``to=name``, ``kind=Message`` and ``count=N``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import attrs

from consensus.errors import ConsensusError
from consensus.raft.configuration import Configuration, InvalidChange
from consensus.raft.core import Core
from consensus.raft.invariants import InvariantViolated
from consensus.raft.messages import AnyMessage, EntryKind, LogEntry, Message, SnapshotMeta
from consensus.raft.progress import ProgressState
from consensus.raft.ready import HardState, Ready
from consensus.types import NodeId, Role
from tests.consensus.raft.group import Group, Match, Observer, entries_of

SEPARATOR = "----"
QUIETLY = "quietly "


@attrs.define(slots=True)
class Block:
    """Comments, commands, and what was expected of them."""

    comments: list[str] = attrs.field(factory=list)
    commands: list[str] = attrs.field(factory=list)
    expected: list[str] = attrs.field(factory=list)


def parse(text: str) -> list[Block]:
    """Read a trace file."""
    blocks = []
    for filled, lines in groupby(text.splitlines(), key=lambda line: bool(line.strip())):
        if not filled:
            continue
        block = Block()
        seen_separator = False
        for line in lines:
            if seen_separator:
                block.expected.append(line)
            elif line.startswith("#"):
                block.comments.append(line)
            elif line == SEPARATOR:
                seen_separator = True
            else:
                block.commands.append(line)
        assert not block.commands or seen_separator, f"no {SEPARATOR} after {block.commands}"
        blocks.append(block)
    return blocks


def render(blocks: Sequence[Block]) -> str:
    """Write a trace file."""
    texts = []
    for block in blocks:
        lines = [*block.comments, *block.commands]
        if block.commands:
            lines += [SEPARATOR, *block.expected]
        texts.append("\n".join(lines))
    return "\n\n".join(texts) + "\n"


def run(path: Path) -> str:
    """Do what a trace says and return it with what came of it."""
    blocks = parse(path.read_text())
    teller = Teller()
    for block in blocks:
        if block.commands:
            block.expected = [
                line for command in block.commands for line in teller.do(command)
            ] or ["ok"]
    return render(blocks)


class Teller(Observer):
    """Runs commands against one group and tells what happened, line by line."""

    def __init__(self) -> None:
        self._group: Group | None = None
        self._lines: list[str] = []
        self._stood: dict[NodeId, tuple[Role, int, NodeId | None]] = {}

    @property
    def group(self) -> Group:
        """The group, which must have been made."""
        assert self._group is not None, "begin with add-nodes"
        return self._group

    def do(self, line: str) -> list[str]:
        """Run one command and return what was to be seen."""
        self._lines = []
        name, *words = line.removeprefix(QUIETLY).split()
        positional = [word for word in words if "=" not in word]
        named = dict(word.split("=", 1) for word in words if "=" in word)
        command: Callable[..., None] = getattr(self, f"_do_{name.replace('-', '_')}")
        try:
            command(*positional, **{_python_name(key): value for key, value in named.items()})
        except (ConsensusError, InvalidChange, InvariantViolated) as error:
            self._lines.append(f"refused, {type(error).__name__}: {error}")
        return [] if line.startswith(QUIETLY) else self._lines

    # -- what is observed ---------------------------------------------------------------------

    def sent(self, message: AnyMessage) -> None:
        """A message is on the wire."""
        self._lines.append(show_message(message))

    def lost(self, message: AnyMessage) -> None:
        """A message will never arrive."""
        self._lines.append(f"lost: {show_message(message)}")

    def waits(self, name: NodeId, ready: Ready) -> None:
        """A held member was asked to sync."""
        self._lines.append(f"{name} waits for its disk: {_show_writes(ready)}")

    def synced(self, name: NodeId, ready: Ready) -> None:
        """It is on disk."""
        self._lines.append(f"{name} syncs {_show_writes(ready)}")

    def applied(self, name: NodeId, entries: Sequence[LogEntry]) -> None:
        """A machine applied entries."""
        self._lines.append(f"{name} applies {_show_entries(entries)}")

    def answered(self, name: NodeId, ready: Ready) -> None:
        """Answers for a member's own users."""
        for read in ready.reads:
            outcome = "failed" if read.index is None else f"is safe at index {read.index}"
            self._lines.append(f"{name}: read {read.request} {outcome}")
        for request in ready.rejected_proposals:
            self._lines.append(f"{name}: proposal {request} was not appended")

    def stands(self, name: NodeId, core: Core) -> None:
        """Tell when a member's role, term or leader changed."""
        now = (core.role, core.term, core.leader)
        if self._stood.get(name) != now:
            self._stood[name] = now
            self._lines.append(f"{name} is {_show_role(core)}")

    # -- commands -----------------------------------------------------------------------------

    def _do_add_nodes(
        self, voters: str, learners: str = "", outsiders: str = "", **settings: str
    ) -> None:
        self._group = Group(
            _names(voters),
            _names(learners),
            outsiders=_names(outsiders),
            settings={name: int(value) for name, value in settings.items()},
        )
        self.group.observer = self
        for name in self.group.members:
            core = self.group[name]
            self._stood[name] = (core.role, core.term, core.leader)

    def _do_log_of(self, name: NodeId, *terms: str, term: str) -> None:
        configuration = self.group[name].configuration
        hard_state = HardState(int(term))
        self.group.add(name, configuration, entries_of(*map(int, terms)), hard_state)
        self._stood[name] = (Role.FOLLOWER, int(term), None)

    def _do_campaign(self, name: NodeId) -> None:
        self.group[name].campaign()
        self.group.run(name)

    def _do_patience(self) -> None:
        for member in self.group.members.values():
            core = member.core
            core.election_elapsed = core.config.election_timeout_ticks
            core.now_ticks = max(core.now_ticks, core.config.election_timeout_ticks)

    def _do_propose(self, name: NodeId, *commands: str) -> None:
        self.group.propose(name, *commands)

    def _do_forward(self, name: NodeId, number: str, command: str) -> None:
        if not self.group[name].forward(int(number), [command.encode()]):
            self._lines.append(f"{name} knows no leader")
        self.group.run(name)

    def _do_change_membership(self, name: NodeId, voters: str, learners: str = "") -> None:
        self.group[name].change_membership(_names(voters), _names(learners))
        self.group.run(name)

    def _do_transfer(self, name: NodeId, to: NodeId) -> None:
        self.group[name].transfer_leadership(to)
        self.group.run(name)

    def _do_read_index(self, name: NodeId, number: str) -> None:
        if not self.group[name].read_index(int(number)):
            self._lines.append(f"{name} knows no leader")
        self.group.run(name)

    def _do_tick(self, name: NodeId, count: str = "1") -> None:
        self.group.tick(name, int(count))

    def _do_compact(self, name: NodeId, index: str) -> None:
        meta = self.group[name].compact(int(index))
        disk = self.group.members[name].disk
        disk.entries = disk.entries[meta.index - disk.snapshot.index :]
        disk.snapshot = meta
        self._lines.append(f"{name}'s log begins after {_show_snapshot(meta)}")

    def _do_deliver(self, **filters: str) -> None:
        self.group.deliver(_match(filters), count=_count(filters))

    def _do_drop(self, **filters: str) -> None:
        self.group.drop(_match(filters), count=_count(filters))

    def _do_repeat(self, **filters: str) -> None:
        copies = [message for message in self.group.wire if _match(filters)(message)]
        self.group.deliver(_match(filters), count=_count(filters))
        self.group.wire.extendleft(reversed(copies[: _count(filters)]))

    def _do_wire(self) -> None:
        self._lines.extend(map(show_message, self.group.wire))

    def _do_stabilize(self, names: str = "") -> None:
        self.group.stabilize(*_names(names))

    def _do_hold(self, names: str) -> None:
        self.group.held |= set(_names(names))

    def _do_persist(self, name: NodeId) -> None:
        self.group.persist(name)

    def _do_release(self, names: str) -> None:
        self.group.held -= set(_names(names))
        for name in _names(names):
            self.group.persist(name)

    def _do_cut(self, names: str) -> None:
        self.group.cut |= set(_names(names))

    def _do_heal(self) -> None:
        self.group.cut.clear()

    def _do_restart(self, name: NodeId) -> None:
        self.group.restart(name)

    def _do_status(self, name: NodeId = "") -> None:
        for each in [name] if name else sorted(self.group.members):
            core = self.group[each]
            log = core.log
            self._lines.append(
                f"{each}: {_show_role(core)} vote={core.voted_for or '-'} "
                f"commit={core.commit_index} applied={core.applied_index} "
                f"log={log.first_index}..{log.last_index} synced={log.persisted_index} "
                f"members={_show_configuration(core.configuration)}"
            )
            for peer in core.peers:
                progress = core.progress[peer]
                paused = " paused" if progress.paused else ""
                waiting = (
                    f" snapshot={progress.snapshot_index}"
                    if progress.state is ProgressState.SNAPSHOT
                    else ""
                )
                self._lines.append(
                    f"  {peer}: {progress.state.value} match={progress.match_index} "
                    f"next={progress.next_index}{waiting}{paused}"
                )

    def _do_log(self, name: NodeId) -> None:
        log = self.group[name].log
        if log.snapshot.index:
            self._lines.append(f"after {_show_snapshot(log.snapshot)}")
        for entry in log.slice(log.first_index, log.last_index + 1):
            unsynced = "" if entry.index <= log.persisted_index else "  (not synced)"
            self._lines.append(f"{_show_entry(entry)}{unsynced}")


# -- rendering --------------------------------------------------------------------------------


def show_message(message: Message) -> str:
    """One message on one line: who, to whom, what, and every field that is not the default."""
    parts = []
    for field in attrs.fields(type(message)):
        value = getattr(message, field.name)
        if field.name in ("sender", "receiver", "prev_log_term") or value == field.default:
            continue
        match field.name:
            case "prev_log_index":
                term = getattr(message, "prev_log_term", 0)
                parts.append(f"prev={value}/{term}")
            case "entries":
                parts.append(f"entries={_show_entries(value)}")
            case "leader_commit":
                parts.append(f"commit={value}")
            case "snapshot":
                parts.append(f"snapshot={_show_snapshot(value)}")
            case "commands":
                parts.append(f"commands={[command.decode() for command in value]}")
            case name:
                parts.append(f"{name}={value}")
    return f"{message.sender} -> {message.receiver}  {type(message).__name__} {' '.join(parts)}"


def _show_entries(entries: Sequence[LogEntry]) -> str:
    if len(entries) > 6:
        return f"[{_show_entry(entries[0])} .. {_show_entry(entries[-1])}]"
    return f"[{', '.join(map(_show_entry, entries))}]"


def _show_entry(entry: LogEntry) -> str:
    match entry.kind:
        case EntryKind.COMMAND:
            what = f'"{entry.data.decode()}"'
        case EntryKind.NOOP:
            what = "noop"
        case EntryKind.CONFIGURATION:
            what = _show_configuration(Configuration.decode(entry.data))
    return f"{entry.index}/{entry.term} {what}"


def _show_configuration(configuration: Configuration) -> str:
    text = ",".join(configuration.voters)
    if configuration.joint:
        text += f"&{','.join(configuration.voters_outgoing)}"
    if configuration.learners:
        text += f" learners={','.join(configuration.learners)}"
    if configuration.learners_next:
        text += f" learners-next={','.join(configuration.learners_next)}"
    return f"({text})"


def _show_snapshot(meta: SnapshotMeta) -> str:
    return f"{meta.index}/{meta.term} {_show_configuration(meta.configuration)}"


def _show_writes(ready: Ready) -> str:
    parts = []
    if ready.snapshot is not None:
        parts.append(f"snapshot {_show_snapshot(ready.snapshot)}")
    if ready.hard_state is not None:
        state = ready.hard_state
        parts.append(f"term={state.term} vote={state.voted_for or '-'} commit={state.commit_index}")
    if ready.entries:
        parts.append(_show_entries(ready.entries))
    return " ".join(parts) or "nothing, but has answers that wait their turn"


def _show_role(core: Core) -> str:
    role = core.role.value.replace("_", "-")
    if core.role is Role.FOLLOWER:
        role += f" of {core.leader or 'nobody'}"
    return f"{role} in term {core.term}"


# -- arguments --------------------------------------------------------------------------------


def _python_name(name: str) -> str:
    return "sender" if name == "from" else name


def _names(text: str) -> list[NodeId]:
    return [name for name in text.split(",") if name]


def _count(filters: dict[str, str]) -> int | None:
    return int(filters["count"]) if "count" in filters else None


def _match(filters: dict[str, str]) -> Match:
    return lambda message: (
        filters.get("sender", message.sender) == message.sender
        and filters.get("to", message.receiver) == message.receiver
        and filters.get("kind", type(message).__name__) == type(message).__name__
    )
