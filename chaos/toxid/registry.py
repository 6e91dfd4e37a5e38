"""All proxies of one server, and the operations of the API on them, without HTTP.

An operation that is refused changes nothing. ``partition`` checks everything first and then closes,
stalls and opens without waiting for anything in between: no byte passes one proxy of the set after
another of it was cut.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chaos.toxid.extensions import InvalidAttributes
from chaos.toxid.proxy import STREAMS, Proxy, split_address
from chaos.toxid.toxics import TYPES, Toxic, build


class ApiError(Exception):
    """A request is refused: an HTTP status, and text for a person."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class LinkState(enum.Enum):
    """What ``partition`` makes of a proxy: CLOSED drops connections and refuses new ones, STALLED
    is silent, in both directions or in one."""

    OPEN = "open"
    CLOSED = "closed"
    STALLED = "stalled"
    STALLED_UPSTREAM = "stalled-upstream"
    STALLED_DOWNSTREAM = "stalled-downstream"


_STALLED_STREAMS: Final[Mapping[LinkState, tuple[str, ...]]] = {
    LinkState.STALLED: STREAMS,
    LinkState.STALLED_UPSTREAM: ("upstream",),
    LinkState.STALLED_DOWNSTREAM: ("downstream",),
}


def _unavailable(proxy: Proxy, error: OSError | ValueError) -> ApiError:
    return ApiError(500, f"cannot listen on {proxy.listen} for proxy {proxy.name}: {error}")


class Registry:
    """The proxies of one server.

    Args:
        seed: every random choice of every toxic follows from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.proxies: dict[str, Proxy] = {}

    def proxy(self, name: str) -> Proxy:
        """Return a proxy by name.

        Raises:
            ApiError: 404, there is none.
        """
        if name not in self.proxies:
            raise ApiError(404, "proxy not found")
        return self.proxies[name]

    async def create(self, name: str, listen: str, upstream: str, enabled: bool) -> Proxy:
        """Add a proxy, and open it if ``enabled``.

        Raises:
            ApiError: 409 the name is taken, 500 the address cannot be listened on.
        """
        if name in self.proxies:
            raise ApiError(409, "proxy already exists")
        proxy = Proxy(name, listen or "127.0.0.1:0", upstream, self.seed)
        if enabled:
            await self._open(proxy)
        self.proxies[name] = proxy
        return proxy

    async def populate(self, wanted: Sequence[tuple[str, str, str, bool]]) -> list[Proxy]:
        """Make each (name, listen, upstream, enabled) exist; one that differs is replaced.

        Raises:
            ApiError: as ``create``.
        """
        proxies = []
        for name, listen, upstream, enabled in wanted:
            existing = self.proxies.get(name)
            if existing is not None:
                if (existing.listen, existing.upstream) == (listen, upstream):
                    proxies.append(existing)
                    continue
                self.delete(name)
            proxies.append(await self.create(name, listen, upstream, enabled))
        return proxies

    async def update(self, proxy: Proxy, listen: str, upstream: str, enabled: bool) -> None:
        """Move or switch a proxy. A moved proxy drops its connections.

        Raises:
            ApiError: 500 the address cannot be listened on.
        """
        if (proxy.listen, proxy.upstream) != (listen, upstream):
            proxy.cut()
            proxy.listen, proxy.upstream = listen, upstream
        if enabled and not proxy.enabled:
            await self._open(proxy)
        elif proxy.enabled and not enabled:
            proxy.cut()

    def delete(self, name: str) -> None:
        """Drop a proxy and its connections.

        Raises:
            ApiError: 404, there is none.
        """
        self.proxy(name).cut()
        del self.proxies[name]

    async def reset(self) -> None:
        """Open every proxy and take every toxic away."""
        for proxy in self.proxies.values():
            proxy.stall(())
            if not proxy.enabled:
                await self._open(proxy)
            for name in list(proxy.toxics):
                proxy.remove_toxic(name)

    async def partition(self, wanted: Mapping[str, LinkState]) -> int:
        """Give each of these proxies its state, at one instant (returned, monotonic nanoseconds).

        Raises:
            ApiError: 404 an unknown name, 500 an address that cannot be listened on again. Nothing
                has changed then.
        """
        states = [(self.proxy(name), state) for name, state in wanted.items()]
        bound: list[Proxy] = []
        for proxy, state in states:
            if proxy.enabled or state is LinkState.CLOSED:
                continue
            try:
                proxy.bind()
            except (OSError, ValueError) as error:
                for other in bound:
                    other.cut()
                raise _unavailable(proxy, error) from error
            bound.append(proxy)
        for proxy, state in states:
            if state is LinkState.CLOSED:
                proxy.cut()
            proxy.stall(_STALLED_STREAMS.get(state, ()))
        instant_ns = time.monotonic_ns()
        for proxy in bound:
            await proxy.serve()
        return instant_ns

    def add_toxic(
        self,
        proxy: Proxy,
        kind: str,
        name: str,
        stream: str,
        toxicity: float,
        given: Mapping[str, Any],
    ) -> Toxic:
        """Add a toxic.

        Raises:
            ApiError: 400 a field is wrong, 409 the name is taken.
        """
        if stream not in STREAMS:
            raise ApiError(400, "stream was invalid, can be either upstream or downstream")
        if kind not in TYPES:
            raise ApiError(
                400, f"invalid toxic type {kind!r}; there are {', '.join(sorted(TYPES))}"
            )
        name = name or f"{kind}_{stream}"
        if name in proxy.toxics:
            raise ApiError(409, "toxic already exists")
        try:
            behaviour = build(TYPES[kind], given, None)
        except InvalidAttributes as error:
            raise ApiError(400, f"bad request body: {error}") from error
        toxic = Toxic(name, stream, toxicity, behaviour)
        proxy.add_toxic(toxic)
        return toxic

    def toxic(self, proxy: Proxy, name: str) -> Toxic:
        """Return a toxic by name.

        Raises:
            ApiError: 404, there is none.
        """
        if name not in proxy.toxics:
            raise ApiError(404, "toxic not found")
        return proxy.toxics[name]

    def update_toxic(
        self, proxy: Proxy, name: str, toxicity: float | None, given: Mapping[str, Any]
    ) -> Toxic:
        """Change a toxic's toxicity and those attributes that are given.

        Raises:
            ApiError: 400 an attribute is wrong, 404 there is no such toxic.
        """
        toxic = self.toxic(proxy, name)
        try:
            toxic.behaviour = build(type(toxic.behaviour), given, toxic.behaviour)
        except InvalidAttributes as error:
            raise ApiError(400, f"bad request body: {error}") from error
        if toxicity is not None:
            toxic.toxicity = toxicity
        proxy.toxic_changed(toxic)
        return toxic

    def remove_toxic(self, proxy: Proxy, name: str) -> None:
        """Take a toxic away.

        Raises:
            ApiError: 404, there is none.
        """
        self.toxic(proxy, name)
        proxy.remove_toxic(name)

    def close(self) -> None:
        """Drop every proxy."""
        for name in list(self.proxies):
            self.delete(name)

    async def _open(self, proxy: Proxy) -> None:
        try:
            split_address(proxy.upstream)
            proxy.bind()
        except (OSError, ValueError) as error:
            raise _unavailable(proxy, error) from error
        await proxy.serve()
