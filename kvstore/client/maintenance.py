"""Members and their upkeep: status, alarms, hashes, defragmentation, snapshots."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kvstore.client import rpcs
from kvstore.client.connection import Connection
from kvstore.client.errors import SnapshotDamaged
from kvstore.client.records import Alarm, AlarmType, HashKV, Member, MemberStatus, SavedSnapshot
from kvstore.pb import etcdserverpb_pb2 as pb

DIGEST_SIZE: Final = hashlib.sha256().digest_size
"""A snapshot ends with the SHA-256 of all that is before it."""


class MaintenanceCalls:
    """The calls of the Maintenance and Cluster services.

    ``endpoint`` names the member to ask, by an address of its own; None asks the current one. All
    raise the errors of ``Connection.call``.
    """

    connection: Connection

    async def member_list(
        self, *, linearizable: bool = True, timeout_s: float | None = None
    ) -> tuple[Member, ...]:
        """Return the members of the cluster."""
        request = pb.MemberListRequest(linearizable=linearizable)
        answer = await self.connection.call(rpcs.MEMBER_LIST, request, timeout_s=timeout_s)
        return tuple(Member.of(each) for each in answer.members)

    async def status(
        self, endpoint: str | None = None, *, timeout_s: float | None = None
    ) -> MemberStatus:
        """Return the state of one member."""
        answer = await self.connection.call(
            rpcs.STATUS, pb.StatusRequest(), timeout_s=timeout_s, endpoint=endpoint
        )
        return MemberStatus.of(answer)

    async def alarms(self, *, timeout_s: float | None = None) -> tuple[Alarm, ...]:
        """Return the alarms that are raised."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        answer = await self.connection.call(rpcs.ALARM, request, timeout_s=timeout_s)
        return tuple(Alarm(each.memberID, AlarmType(each.alarm)) for each in answer.alarms)

    async def alarm_disarm(
        self,
        member_id: int = 0,
        alarm: AlarmType = AlarmType.NONE,
        *,
        timeout_s: float | None = None,
    ) -> tuple[Alarm, ...]:
        """Disarm one alarm of one member; with neither, all alarms. Returns what was disarmed."""
        wanted = [Alarm(member_id, alarm)]
        if member_id == 0 and alarm is AlarmType.NONE:
            wanted = list(await self.alarms(timeout_s=timeout_s))
        disarmed: list[Alarm] = []
        for each in wanted:
            request = pb.AlarmRequest(
                action=pb.AlarmRequest.DEACTIVATE, memberID=each.member_id, alarm=each.type.value
            )
            answer = await self.connection.call(rpcs.ALARM, request, timeout_s=timeout_s)
            disarmed.extend(Alarm(gone.memberID, AlarmType(gone.alarm)) for gone in answer.alarms)
        return tuple(disarmed)

    async def hash_kv(
        self, endpoint: str | None = None, *, revision: int = 0, timeout_s: float | None = None
    ) -> HashKV:
        """Return the checksum of a member's history up to ``revision`` (0: all of it)."""
        answer = await self.connection.call(
            rpcs.HASH_KV,
            pb.HashKVRequest(revision=revision),
            timeout_s=timeout_s,
            endpoint=endpoint,
        )
        return HashKV.of(answer)

    async def defragment(
        self, endpoint: str | None = None, *, timeout_s: float | None = None
    ) -> None:
        """Give back the space that compaction freed, on one member."""
        await self.connection.call(
            rpcs.DEFRAGMENT, pb.DefragmentRequest(), timeout_s=timeout_s, endpoint=endpoint
        )

    async def snapshot(
        self, path: str | os.PathLike[str], endpoint: str | None = None
    ) -> SavedSnapshot:
        """Save a member's whole state to ``path``, verified and synced.

        The file appears under its name only when it is complete. Raises ``SnapshotDamaged`` if the
        stream ends early or its checksum does not fit, ``OSError`` if the file cannot be written.
        """
        with SnapshotFile(Path(path)) as file:
            async for part in self.connection.download(
                rpcs.SNAPSHOT, pb.SnapshotRequest(), endpoint=endpoint
            ):
                file.write(part.blob, part.version)
            return file.finish()


class SnapshotFile:
    """Writes a snapshot beside its name, verifies its checksum, and renames it when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._hash = hashlib.sha256()
        self._tail = b""
        self._size = 0
        self._version = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, blob: bytes, version: str = "") -> None:
        """Append a piece; the last ``DIGEST_SIZE`` bytes of all are the checksum."""
        self._version = version or self._version
        self._file.write(blob)
        data = self._tail + blob
        body, self._tail = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
        self._hash.update(body)
        self._size += len(body)

    def finish(self) -> SavedSnapshot:
        """Verify, sync and rename. Raises ``SnapshotDamaged``."""
        digest = self._hash.digest()
        if digest != self._tail:
            raise SnapshotDamaged(
                f"the snapshot from the server is incomplete or damaged: {self._size} bytes came, "
                f"with SHA-256 {digest.hex()}, but it says {self._tail.hex() or 'nothing'}"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return SavedSnapshot(str(self._path), self._size, digest, self._version)
