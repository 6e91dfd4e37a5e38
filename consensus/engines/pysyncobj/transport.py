"""PySyncObj's TCP transport, with the gaps closed that can be closed from here.

* Each link begins with a greeting that carries format version, group and cluster: a member of
  another cluster, or of another version, is refused by name. Nobody else is listened to.
* AppendEntries is settled against the log first (``matching``), acknowledgements carry their term,
  and an acknowledgement never makes the leader send again what is on its way.
* A link that has taken enough for one turn is paused: PySyncObj is told that it is down, and up
  again when it has drained. So catching up and sending snapshots hold neither loop nor memory.
* Links are kept busy with pings; PySyncObj would otherwise drop the first vote sent over a link
  that was silent for long.
* Messages of our own (forwarded proposals, questions to the leader) travel on the same links.

A message is a pickle on PySyncObj's wire: who can reach the port can run code. Hence the rule about
addresses and passwords in the engine.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final, Protocol

import attrs
import structlog
from pysyncobj.tcp_connection import CONNECTION_STATE
from pysyncobj.transport import TCPTransport

from consensus.engines.pysyncobj.journal import SegmentJournal
from consensus.engines.pysyncobj.matching import Message, Verdict, settle
from consensus.engines.pysyncobj.poller import EpollPoller
from consensus.engines.pysyncobj.raft import PeerNode, Raft
from consensus.errors import ConfigError

log = structlog.get_logger(__name__)

WIRE_VERSION: Final = 1
HELLO: Final = "raftyard_hello"
PING: Final = "raftyard_ping"

CONNECT_S: Final = 0.02
"""Between looks at which peers have to be dialled, in seconds."""
SEND_BATCH_BYTES: Final = 256 * 1024
"""Entries in one AppendEntries, unless a single one is larger."""
SEND_BURST_BYTES: Final = 512 * 1024
"""What one peer is sent in one turn of the loop before others get their turn."""
LINK_BACKLOG_BYTES: Final = 1024 * 1024
"""Unsent bytes at which a link counts as busy and is sent no more entries or snapshot."""
LINK_BACKLOG_BYTES_MAX: Final = 64 * 1024 * 1024
"""Unsent bytes at which a link is cut: its peer has stopped reading."""


class Owner(Protocol):
    """What the transport tells the engine."""

    def peer_message(self, node: PeerNode, message: Message) -> None:
        """One of our own messages."""

    def link_up(self, node: PeerNode) -> None:
        """A peer greeted us."""

    def link_down(self, node: PeerNode) -> None:
        """The link to a peer is gone; what was sent may or may not have arrived."""

    def log_diverged(self, index: int) -> None:
        """The leader would replace the applied entry ``index``."""


@attrs.define(slots=True)
class Link:
    """One peer's connection as we see it."""

    greeted: bool = False
    paused: bool = False
    resume_at: float = 0.0
    burst: int = 0


class PeerTransport(TCPTransport):  # type: ignore[misc]
    """One member's links to its peers.

    Args:
        raft, me, others: as PySyncObj gives them.
        owner: the engine.
        poller, journal: the same ones that ``raft`` uses.
        cluster: what every member of this cluster says in its greeting.
        ping_s: seconds between pings.
    """

    def __init__(
        self,
        raft: Raft,
        me: PeerNode,
        others: set[PeerNode],
        *,
        owner: Owner,
        poller: EpollPoller,
        journal: SegmentJournal,
        cluster: str,
        ping_s: float,
    ) -> None:
        self._raft = raft
        self._owner = owner
        self._poller = poller
        self._journal = journal
        self._hello: Message = {
            "type": HELLO,
            "version": WIRE_VERSION,
            "cluster": cluster,
            "name": me.name,
        }
        self._ping_s = ping_s
        self._next_ping = 0.0
        self._next_connect = 0.0
        self._links: dict[PeerNode, Link] = {}
        self.heard_leader_at = 0.0
        super().__init__(raft, me, others)

    # -- for the engine -----------------------------------------------------------------------

    @property
    def linked(self) -> int:
        """How many peers are connected and have greeted."""
        return sum(1 for link in self._links.values() if link.greeted)

    def is_linked(self, node: PeerNode) -> bool:
        """Whether ``node`` is connected and has greeted."""
        link = self._links.get(node)
        return link is not None and link.greeted

    def has_room(self, node: PeerNode) -> bool:
        """Whether the link to ``node`` takes a message of ours now."""
        connection = self._connections.get(node)
        return (
            self.is_linked(node)
            and connection.state == CONNECTION_STATE.CONNECTED
            and connection.getSendBufferSize() < LINK_BACKLOG_BYTES_MAX
        )

    @property
    def wants_tick(self) -> bool:
        """Whether a paused link could go on at once."""
        return any(
            link.paused and not link.resume_at and self._backlog(node) < LINK_BACKLOG_BYTES // 4
            for node, link in self._links.items()
        )

    # -- connecting ---------------------------------------------------------------------------

    def _maybeBind(self) -> None:
        if self._ready:  # type: ignore[has-type]
            return
        try:
            self._server.bind()
        except OSError as error:
            address = self._syncObj.conf.bindAddress
            self._server.unbind()
            raise ConfigError(
                f"cannot listen for peers on {address}: {error.strerror}; "
                "another process may use the port, or the address is not of this machine"
            ) from None
        self._ready = True

    def _connectIfNecessarySingle(self, node: PeerNode) -> bool:
        connected = bool(super()._connectIfNecessarySingle(node))
        connection = self._connections.get(node)
        if (
            not connected
            and connection is not None
            and connection.state == CONNECTION_STATE.DISCONNECTED
        ):
            connection.disconnect()  # closes the socket that a failed connect leaves behind
        return connected

    def _onIncomingMessageReceived(self, conn: Any, message: Any) -> None:
        exchanging_keys = self._syncObj.encryptor and not conn.sendRandKey
        if not exchanging_keys:
            node = self._nodeAddrToNode.get(message) if isinstance(message, str) else None
            if node is None:
                log.warning("a peer that is no member was refused", said=repr(message)[:100])
                self._unknownConnections.discard(conn)
                conn.disconnect()
                return
            old = self._connections.get(node)
            if old is not None and old is not conn:
                old.disconnect()  # two links to one peer would reorder its messages
        super()._onIncomingMessageReceived(conn, message)

    def _onNodeConnected(self, node: PeerNode) -> None:
        self._links[node] = Link()
        self._connections[node].send(self._hello)

    def _onNodeDisconnected(self, node: PeerNode) -> None:
        link = self._links.pop(node, None)
        super()._onNodeDisconnected(node)
        if link is not None and link.greeted:
            self._owner.link_down(node)

    def _greeted(self, node: PeerNode, message: Message) -> None:
        for name in ("version", "cluster"):
            if message.get(name) != self._hello[name]:
                log.error(
                    f"peer refused: it is of another {name}",
                    peer=node.name,
                    address=node.address,
                    its=message.get(name),
                    ours=self._hello[name],
                )
                self._connections[node].disconnect()
                return
        self._links[node].greeted = True
        super()._onNodeConnected(node)
        self._raft.send_soon()
        self._owner.link_up(node)

    def _onTick(self) -> None:
        now = self._raft.now()
        if now >= self._next_connect:
            self._next_connect = now + CONNECT_S
            super()._onTick()
        for node, link in self._links.items():
            link.burst = 0
            if (
                link.paused
                and now >= link.resume_at
                and self._backlog(node) < LINK_BACKLOG_BYTES // 4
            ):
                link.paused = False
                super()._onNodeConnected(node)
                self._raft.send_soon()
        if now >= self._next_ping:
            self._next_ping = now + self._ping_s
            for node, link in list(self._links.items()):
                if link.greeted:
                    self.send(node, {"type": PING})

    # -- sending ------------------------------------------------------------------------------

    def send(self, node: PeerNode, message: Message) -> bool:
        """Send a message; False when the link is down, or went down over it."""
        link = self._links.get(node)
        if link is None or not link.greeted:
            return False
        kind = message["type"]
        if kind == "append_entries":
            message = self._bounded(node, link, message)
        elif kind == "next_node_idx":
            message = {**message, "term": self._raft.term}
        sent = bool(super().send(node, message))
        backlog = self._backlog(node)
        if backlog:
            self._poller.want_write(self._connections[node].fileno())
        if backlog > LINK_BACKLOG_BYTES_MAX:
            log.warning("link cut: the peer does not read", peer=node.name, unsent_bytes=backlog)
            self._connections[node].disconnect()
            return False
        if (backlog > LINK_BACKLOG_BYTES or link.burst > SEND_BURST_BYTES) and not link.paused:
            self._pause(node, link)
        return sent

    def _backlog(self, node: PeerNode) -> int:
        connection = self._connections.get(node)
        return 0 if connection is None else int(connection.getSendBufferSize())

    def _pause(self, node: PeerNode, link: Link, until: float = 0.0) -> None:
        link.paused = True
        link.resume_at = until
        super()._onNodeDisconnected(node)

    def _bounded(self, node: PeerNode, link: Link, message: Message) -> Message:
        """Cut what is sent at once, and count it."""
        entries = message.get("entries")
        if entries:
            size = 0
            for count, (command, index, _) in enumerate(entries):
                if count and size + len(command) > SEND_BATCH_BYTES:
                    self._raft.set_next_index(node, index)
                    message = {**message, "entries": entries[:count]}
                    break
                size += len(command)
            link.burst += size
        elif "serialized" in message:
            piece = message["serialized"]
            if piece:
                link.burst += len(piece[0])
            elif not link.paused:  # the snapshot is being written: nothing to send for a while
                self._pause(node, link, self._raft.now() + self._syncObj.conf.appendEntriesPeriod)
        return message

    # -- receiving ----------------------------------------------------------------------------

    def _onMessageReceived(self, node: PeerNode, message: Any) -> None:
        if not isinstance(message, dict):
            return
        kind = message.get("type", "")
        link = self._links.get(node)
        if link is None or (not link.greeted and kind != HELLO):
            return
        if kind == HELLO:
            self._greeted(node, message)
        elif kind == PING:
            pass
        elif kind.startswith("raftyard_"):
            self._owner.peer_message(node, message)
        elif kind == "append_entries":
            self._on_append_entries(node, message)
        elif kind == "next_node_idx":
            self._on_acknowledgement(node, message)
        elif kind in ("request_vote", "response_vote", "timeout_now"):
            super()._onMessageReceived(node, message)

    def _on_append_entries(self, node: PeerNode, message: Message) -> None:
        raft = self._raft
        if message["term"] < raft.term:
            return
        self.heard_leader_at = raft.now()
        if "prevLogIdx" not in message:
            # A piece of a snapshot, or a sign of life while one is made. It proves nothing about
            # our log, so it must not move our commit index.
            capped = {
                **message,
                "commit_index": min(message["commit_index"], raft.raftCommitIndex),
            }
            super()._onMessageReceived(node, capped)
            self._acknowledge(node, raft.raftLastApplied + 1, success=False, reset=False)
            return
        settled = settle(self._journal, raft.raftLastApplied, message)
        if settled.verdict is Verdict.APPLIED_CONFLICT:
            self._owner.log_diverged(settled.index)
            return
        super()._onMessageReceived(node, settled.message)
        if settled.verdict is Verdict.MATCHED:
            self._acknowledge(node, settled.index + 1, success=True, reset=False)
        elif settled.verdict is Verdict.CONFLICT:
            self._acknowledge(node, settled.index, success=False, reset=True)

    def _acknowledge(self, node: PeerNode, index: int, *, success: bool, reset: bool) -> None:
        self.send(
            node,
            {"type": "next_node_idx", "next_node_idx": index, "success": success, "reset": reset},
        )

    def _on_acknowledgement(self, node: PeerNode, message: Message) -> None:
        raft = self._raft
        if message.get("term") != raft.term or not raft.leads:
            return  # of another leadership: it says nothing about this one's log
        before = raft.next_index(node)
        super()._onMessageReceived(node, message)
        if message["reset"]:
            raft.send_soon()
        elif message["success"]:
            raft.set_next_index(node, max(before, raft.next_index(node)))

    def destroy(self) -> None:
        """Close every link and the listening socket."""
        self._links.clear()
        with contextlib.suppress(OSError):
            super().destroy()
