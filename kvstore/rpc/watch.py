"""The Watch service: one ``WatchStream`` for each call, bound to a gRPC stream.

One task reads requests, the call's own sends responses; neither waits for the other. The call ends
when the client goes, when it half-closed and no watch is left, when a request cannot be read, when
a required leader stays away, or when the server stops (``GrpcApp.close`` ends every call).
"""

from __future__ import annotations

import asyncio
from typing import Final

from kvstore.errors import EtcdError
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.registry import Kind, Method, Stream
from kvstore.rpc.require_leader import LeaderGuard
from kvstore.watch import WatchHub, WatchStream
from kvstore.watch.stream import PROGRESS_INTERVAL_S_DEFAULT

SERVICE: Final = "etcdserverpb.Watch"


class WatchService:
    """Watch on one member.

    Args:
        hub: the member's watchers.
        leader: tells whether there is a leader.
        progress_interval_s: ``--watch-progress-notify-interval``, in seconds.
    """

    def __init__(
        self,
        hub: WatchHub,
        leader: LeaderGuard,
        *,
        progress_interval_s: float = PROGRESS_INTERVAL_S_DEFAULT,
    ) -> None:
        self._hub = hub
        self._leader = leader
        self._progress_interval_s = progress_interval_s

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""
        kind = Kind.BIDI_STREAM
        return [Method(SERVICE, "Watch", pb.WatchRequest, pb.WatchResponse, kind, self.watch)]

    async def watch(self, stream: Stream[pb.WatchRequest]) -> None:
        """Serve one call.

        Raises:
            EtcdError: a request was malformed, or the leader is gone and was required.
        """
        watches = WatchStream(self._hub, progress_interval_s=self._progress_interval_s)
        try:
            with self._leader.guard(stream.metadata):
                reader = asyncio.create_task(_read(stream, watches))
                try:
                    async for responses in watches.responses():
                        await stream.send_all(responses)
                finally:
                    reader.cancel()
                    (ended,) = await asyncio.gather(reader, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended
        finally:
            watches.close()


async def _read(stream: Stream[pb.WatchRequest], watches: WatchStream) -> None:
    """Hand requests to the stream until they end, one way or another."""
    try:
        async for request in stream:
            await watches.handle(request)
    except EtcdError as error:
        watches.close(error.status)
    except BaseException:
        watches.close()
        raise
    else:
        watches.finish_requests()
