"""Asks a client that has been silent for long whether it is still there, as etcd does.

A client whose machine has lost its power never closes its connection; without this its watches and
their events would be kept for it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Keepalive:
    """One connection's keep-alive.

    Args:
        interval_s: a ping goes out after so many seconds of silence (etcd:
            ``--grpc-keepalive-interval``, two hours); 0 for never.
        timeout_s: the connection ends so many seconds after an unanswered ping (etcd:
            ``--grpc-keepalive-timeout``, 20 s).
    """

    def __init__(self, interval_s: float, timeout_s: float) -> None:
        self.heard = False
        """Set by whoever hears of the client."""
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._ping: Callable[[], None]
        self._give_up: Callable[[], None]
        self._timer: asyncio.TimerHandle | None = None

    def start(self, ping: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Begin to listen.

        Args:
            ping: sends a ping.
            give_up: ends the connection.
        """
        self._ping, self._give_up = ping, give_up
        if self._interval_s > 0:
            self._after(self._interval_s, self._silent)

    def stop(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, action)

    def _silent(self) -> None:
        if self.heard:
            self.heard = False
            self._after(self._interval_s, self._silent)
            return
        self._ping()
        self._after(self._timeout_s, self._unanswered)

    def _unanswered(self) -> None:
        if self.heard:
            self.heard = False
            self._after(self._interval_s, self._silent)
            return
        self._give_up()
