"""One member: a replicated set on stock PySyncObj, asked over TCP in JSON lines.

``{"id": 1, "op": "add", "item": "a"}`` is answered, once the library's callback says so, with
``{"id": 1, "reason": 0}`` (its FAIL_REASON; 0 is success). ``read`` answers with the local items,
``status`` with role, term and readiness. Nothing of the library is changed, but that a *crash
point*, if one is named, ends the process with SIGKILL at a certain step, as a crash there would:

- ``inside-compaction``: the journal was emptied, and what it shall keep is being written again;
- ``after-truncation``: entries that were acknowledged to the leader were taken off the log's end,
  to be appended again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import click
import pysyncobj
import pysyncobj.journal

KEPT_BEFORE_CRASH: Final = 3
"""Entries that ``inside-compaction`` lets be written again before it strikes."""

KEPT_MIN: Final = 300
"""It strikes where at least so many are to be kept: more than can be on their way at once."""

TRUNCATED_MIN: Final = 5
"""Entries that ``after-truncation`` waits to see truncated at once."""

LINE_BYTES_MAX: Final = 16 * 1024 * 1024


class Items(pysyncobj.SyncObjConsumer):  # type: ignore[misc]
    """The replicated state: strings in the order in which they were added."""

    def __init__(self, state_bytes: int) -> None:
        super().__init__()
        self.items: list[str] = []
        self.more = os.urandom(state_bytes)  # what a larger application would have

    @pysyncobj.replicated  # type: ignore[untyped-decorator]
    def add(self, item: str) -> int:
        """Add an item; ``poison`` makes the command fail as a bug in an application would."""
        if item == "poison":
            raise ValueError("poison")
        self.items.append(item)
        return len(self.items)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(crash_point: str) -> None:
    """Let the process end at a step of the library's journal; "" for none."""
    journal = pysyncobj.journal.FileJournal
    if crash_point == "inside-compaction":
        rewrite, add = journal.deleteEntriesTo, journal.add
        left: list[int] = []

        def counted(self: Any, *entry: Any) -> None:
            if left:
                left[0] -= 1
                if not left[0]:
                    _die()
            add(self, *entry)

        def compact(self: Any, entry: int) -> None:
            if len(self) - entry > KEPT_MIN:
                left.append(KEPT_BEFORE_CRASH)
            rewrite(self, entry)

        journal.add, journal.deleteEntriesTo = counted, compact
    elif crash_point == "after-truncation":
        truncate = journal.deleteEntriesFrom

        def cut(self: Any, entry: int) -> None:
            removed = len(self) - entry
            truncate(self, entry)
            if removed >= TRUNCATED_MIN:
                _die()

        journal.deleteEntriesFrom = cut


class Server:
    """Answers clients for one member."""

    def __init__(self, replica: pysyncobj.SyncObj, items: Items) -> None:
        self._replica = replica
        self._items = items

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; its requests are answered as they are done, in any order."""
        loop = asyncio.get_running_loop()

        def answer(number: int, **fields: Any) -> None:
            if not writer.is_closing():
                writer.write(json.dumps({"id": number, **fields}).encode() + b"\n")

        async for line in reader:
            request = json.loads(line)
            number = request["id"]
            if request["op"] == "add":

                def done(_: object, reason: int, number: int = number) -> None:
                    loop.call_soon_threadsafe(lambda: answer(number, reason=reason))

                self._items.add(request["item"], callback=done)
            elif request["op"] == "read":
                answer(number, items=list(self._items.items))
            else:
                answer(number, **self._status())
        writer.close()

    def _status(self) -> dict[str, Any]:
        status = self._replica.getStatus()
        leader = status["leader"]
        return {
            "ready": self._replica.isReady(),
            "leads": self._replica._isLeader(),
            "leader": str(leader) if leader is not None else "",
            "self": str(status["self"]),
            "term": status["raft_term"],
            "applied": status["last_applied"],
        }


@click.command()
@click.option("--me", required=True)
@click.option("--peers", default="")
@click.option("--client", required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--dump/--no-dump", default=True)
@click.option("--batch/--no-batch", default=True)
@click.option("--compact-entries", type=int, default=5000)
@click.option("--state-bytes", type=int, default=0)
@click.option("--crash-point", default="")
def main(
    me: str,
    peers: str,
    client: str,
    data: Path,
    dump: bool,
    batch: bool,
    compact_entries: int,
    state_bytes: int,
    crash_point: str,
) -> None:
    """Run one member until it is killed."""
    data.mkdir(parents=True, exist_ok=True)
    settings = pysyncobj.SyncObjConf(
        journalFile=str(data / "journal"),
        fullDumpFile=str(data / "dump") if dump else None,
        logCompactionMinEntries=compact_entries,
        appendEntriesUseBatch=batch,
        connectionRetryTime=0.2,
        bindAddress=me,
    )
    items = Items(state_bytes)
    arm(crash_point)
    others = [peer for peer in peers.split(",") if peer]
    replica = pysyncobj.SyncObj(me, others, settings, consumers=[items])
    host, _, port = client.rpartition(":")

    async def serve() -> None:
        server = await asyncio.start_server(
            Server(replica, items).serve, host, int(port), limit=LINE_BYTES_MAX
        )
        async with server:
            await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    sys.exit(main())
