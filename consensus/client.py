"""A client for any served machine (``raftyard serve``).

It knows several members and talks to one of them, the next when that one cannot answer. A command
is sent again only when it certainly was not applied; when nobody can tell, ``OutcomeUnknown`` says
so. A client has ``propose`` and ``query`` as a node has, so what works on a node works on it: a
``Handle``, or a session that makes repetition harmless (``statemachines.Session``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

import httpx

from consensus.errors import (
    ConfigError,
    ConsensusError,
    Halted,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    ReadFailed,
    Stopped,
)
from consensus.node import PROPOSE_TIMEOUT_S, READ_TIMEOUT_S
from consensus.sync import LoopThread
from consensus.types import Applied, Consistency
from consensus.wire import ANSWERED, APPLIED, decode_error, decode_result, encode_command

CONNECT_TIMEOUT_S: Final = 1.0
RETRY_S: Final = 0.05
"""Pause before another member is tried, in seconds."""
ANSWER_MARGIN_S: Final = 1.0
"""A server gets this much longer than its own deadline to say that it gave up, in seconds."""


class Client:
    """Talks to one cluster.

    Args:
        endpoints: client addresses of its members, "host:port" or with "http://" before it.

    Raises:
        ConfigError: there is no endpoint, or one is not an address.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        if not endpoints:
            raise ConfigError("a client needs at least one endpoint, host:port")
        self._endpoints = [_url(endpoint) for endpoint in endpoints]
        self._current = 0
        self._http = httpx.AsyncClient(trust_env=False)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def propose(self, command: bytes, timeout_s: float = PROPOSE_TIMEOUT_S) -> Applied:
        """Replicate a command and return its result.

        Raises:
            ProposalDropped (NotLeader, QueueFull): certainly not applied in ``timeout_s`` seconds.
            OutcomeUnknown: it may have been applied, or may yet be.
            BadRequest: the server does not take such a command.
        """
        answer = await self._call("/propose", encode_command(command), timeout_s, write=True)
        return Applied(answer["term"], answer["index"], decode_result(answer["result"]))

    async def query(
        self,
        request: Any,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Ask the machine; ``request`` is bytes.

        Raises:
            ReadFailed: no member answered in ``timeout_s`` seconds.
            BadRequest: the machine does not understand the question.
        """
        body = {**encode_command(request), "consistency": consistency.value}
        answer = await self._call("/query", body, timeout_s, write=False)
        return decode_result(answer["result"])

    async def status(self, timeout_s: float = CONNECT_TIMEOUT_S) -> dict[str, dict[str, Any]]:
        """Return what each endpoint says about itself; ``{"error": ...}`` where it says nothing."""

        async def ask(endpoint: str) -> dict[str, Any]:
            try:
                response = await self._http.get(f"{endpoint}/status", timeout=timeout_s)
                status: dict[str, Any] = response.json()
            except (httpx.HTTPError, ValueError) as error:
                return {"error": _reason(error)}
            return status

        found = await asyncio.gather(*(ask(endpoint) for endpoint in self._endpoints))
        return dict(zip(self._endpoints, found, strict=True))

    # -- inside -------------------------------------------------------------------------------

    async def _call(
        self, path: str, body: dict[str, Any], timeout_s: float, *, write: bool
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.001, deadline - time.monotonic())
            try:
                return await self._once(path, body, left_s, write=write)
            except (ProposalDropped, ReadFailed, Halted, Stopped) as error:
                if time.monotonic() + RETRY_S >= deadline:
                    raise _final(error, write) from None
                self._current += 1
                await asyncio.sleep(RETRY_S)

    async def _once(
        self, path: str, body: dict[str, Any], left_s: float, *, write: bool
    ) -> dict[str, Any]:
        endpoint = self._endpoints[self._current % len(self._endpoints)]
        try:
            response = await self._http.post(
                endpoint + path,
                json={**body, "timeout_s": left_s},
                timeout=httpx.Timeout(
                    left_s + ANSWER_MARGIN_S, connect=min(CONNECT_TIMEOUT_S, left_s)
                ),
            )
            answer = response.json()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            # Nothing was sent.
            raise NotLeader(None, f"{endpoint} cannot be reached: {_reason(error)}") from None
        except (httpx.HTTPError, ValueError) as error:
            text = f"{endpoint} did not answer: {_reason(error)}"
            raise (OutcomeUnknown(text) if write else ReadFailed(text)) from None
        if isinstance(answer, dict) and answer.get("outcome") in (APPLIED, ANSWERED):
            return answer
        raise decode_error(answer if isinstance(answer, dict) else {})


def _final(error: ConsensusError, write: bool) -> ConsensusError:
    """Return what is raised when time is up: by name what the caller can expect."""
    if write:
        return error if isinstance(error, ProposalDropped) else ProposalDropped(str(error))
    return error if isinstance(error, ReadFailed) else ReadFailed(str(error))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _url(endpoint: str) -> str:
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    parsed = httpx.URL(url)
    if parsed.scheme != "http" or not parsed.host or parsed.port is None:
        raise ConfigError(f"endpoint {endpoint!r} is not host:port")
    return f"http://{parsed.netloc.decode()}"


class SyncClient:
    """A ``Client`` with blocking calls, for plain scripts."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._client = Client(endpoints)
        self._thread = LoopThread("raftyard client")

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        try:
            self._thread.run(self._client.close())
        except Stopped:
            return
        self._thread.close()

    def propose(self, command: bytes, timeout_s: float = PROPOSE_TIMEOUT_S) -> Applied:
        """Replicate a command; see ``Client.propose``."""
        return self._thread.run(self._client.propose(command, timeout_s))

    def query(
        self,
        request: bytes,
        consistency: Consistency = Consistency.LINEARIZABLE,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Ask the machine; see ``Client.query``."""
        return self._thread.run(self._client.query(request, consistency, timeout_s))

    def status(self, timeout_s: float = CONNECT_TIMEOUT_S) -> dict[str, dict[str, Any]]:
        """Return what each endpoint says about itself; see ``Client.status``."""
        return self._thread.run(self._client.status(timeout_s))
