"""A watch on the raw stream of etcd's API, with everything that it is told in the history.

A client library would hide what is looked for here: it resumes, filters and reorders. Each recorded
watch has a connection and a stream of its own, so that the progress of a stream is its own.
"""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio

from chaos.calibrate.scene import Scene
from chaos.history.format import Notice, SeenEvent, Watcher
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import mvccpb_pb2


class RecordedWatch:
    """A watch at one member.

    Args:
        scene: whose history it writes to; it is closed with the scene.
        member: where it watches, on no proxied link.
        prefix: of the keys.
        start: the first revision, 0 for from now on.
    """

    def __init__(self, scene: Scene, member: str, prefix: str, start: int = 0) -> None:
        self.newest = 0
        """The newest revision of which it was told an event."""
        self.told = 0
        """How many events it was told."""
        self._scene = scene
        self._watcher = Watcher(0, member, prefix, prefix=True, start=start)
        self._channel = grpc.aio.insecure_channel(
            scene.cluster.direct_addresses[member],
            options=(("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)),
        )
        self._stream = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )()
        self._created = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def create(self, and_progress: bool = False) -> RecordedWatch:
        """Begin; with ``and_progress`` ask for the progress at once, on the same stream."""
        scene, watcher = self._scene, self._watcher
        scene.recorder.watcher(watcher)
        scene.at_end(self.close)
        request = pb.WatchCreateRequest(
            key=watcher.key.encode(),
            range_end=watcher.key[:-1].encode() + bytes([watcher.key.encode()[-1] + 1]),
            start_revision=watcher.start,
        )
        await self._stream.write(pb.WatchRequest(create_request=request))
        if and_progress:
            await self._stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        self._reading = asyncio.create_task(self._read())
        await self._created.wait()
        return self

    async def close(self) -> None:
        """End it."""
        self._stream.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close(None)

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._stream.read()
            except (grpc.aio.AioRpcError, asyncio.CancelledError):
                return
            if answer is grpc.aio.EOF:
                return
            self._scene.recorder.notice(self._watcher, self._notice(answer))
            self.told += len(answer.events)
            self.newest = max([self.newest, *(event.kv.mod_revision for event in answer.events)])
            if answer.created:
                self._created.set()

    def _notice(self, answer: pb.WatchResponse) -> Notice:
        events = tuple(
            SeenEvent(
                key=event.kv.key.decode(),
                value=None if event.type == mvccpb_pb2.Event.DELETE else event.kv.value.decode(),
                revision=event.kv.mod_revision,
                create=event.kv.create_revision,
                version=event.kv.version,
            )
            for event in answer.events
        )
        kind = "events" if events else "progress"
        if answer.created or answer.canceled:
            kind = "created" if answer.created else "canceled"
        now = time.monotonic_ns()
        return Notice(now, kind, answer.header.revision, events, answer.compact_revision)
