"""PySyncObj's sockets, watched by the event loop through one descriptor.

PySyncObj polls; an event loop waits. An epoll descriptor is itself pollable: it is readable while
any socket in it is. So PySyncObj's sockets live in an epoll of their own, and the loop watches that
one descriptor and runs a tick when it wakes. Nothing spins, nothing sleeps.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable

from pysyncobj.poller import POLL_EVENT_TYPE

Callback = Callable[[int, int], None]


class EpollPoller:
    """PySyncObj's poller interface over ``select.epoll``."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[Callback, int]] = {}
        self.dispatched = 0
        """How many events the last ``poll`` handed out."""

    def fileno(self) -> int:
        """The descriptor that is readable while any subscribed one is ready."""
        return self._epoll.fileno()

    def subscribe(self, descr: int, callback: Callback, eventMask: int) -> None:
        """Call ``callback(descr, events)`` from ``poll`` when one of ``eventMask`` happens."""
        events = 0
        if eventMask & POLL_EVENT_TYPE.READ:
            events |= select.EPOLLIN
        if eventMask & POLL_EVENT_TYPE.WRITE:
            events |= select.EPOLLOUT
        known = self._callbacks.get(descr)
        self._callbacks[descr] = (callback, eventMask)
        if known is not None:
            if known == (callback, eventMask):
                return
            try:
                self._epoll.modify(descr, events)
                return
            except FileNotFoundError:
                pass  # the number was closed and given to a new socket
        self._epoll.register(descr, events)

    def unsubscribe(self, descr: int) -> None:
        """Forget ``descr``; closed ones have left the epoll by themselves."""
        if self._callbacks.pop(descr, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descr)

    def want_write(self, descr: int) -> None:
        """Also tell when ``descr`` takes data again. PySyncObj forgets to ask after a full send."""
        known = self._callbacks.get(descr)
        if known is not None and not known[1] & POLL_EVENT_TYPE.WRITE:
            self.subscribe(descr, known[0], known[1] | POLL_EVENT_TYPE.WRITE)

    def poll(self, timeout: float) -> None:
        """Hand out what is ready within ``timeout`` seconds."""
        ready = [
            (descr, events, self._callbacks.get(descr))
            for descr, events in self._epoll.poll(timeout)
        ]
        self.dispatched = len(ready)
        for descr, events, known in ready:
            if known is None or self._callbacks.get(descr) is not known:
                continue  # an earlier callback of this round closed it
            mask = 0
            if events & select.EPOLLIN:
                mask |= POLL_EVENT_TYPE.READ
            if events & select.EPOLLOUT:
                mask |= POLL_EVENT_TYPE.WRITE
            if events & (select.EPOLLERR | select.EPOLLHUP):
                mask |= POLL_EVENT_TYPE.ERROR
            known[0](descr, mask)

    def close(self) -> None:
        """Release the epoll descriptor."""
        self._callbacks.clear()
        self._epoll.close()
