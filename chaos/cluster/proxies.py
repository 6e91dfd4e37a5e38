"""Driving a Toxiproxy server (the real one, or toxid) through toxiproxy-python.

The client library is used as published; this module covers what it lacks. It has no timeouts, so
its calls of ``requests`` go through ``_BoundedRequests``. It keeps the server's address in class
attributes, so each call takes a lock and sets the address first: several servers can then be driven
from one process and from any thread. It ignores statuses of 500 and above, knows no PATCH, and
returns the version as raw bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import attrs
import requests
import toxiproxy.api
from toxiproxy import Proxy, Toxiproxy
from toxiproxy.api import APIConsumer

from chaos.cluster.links import LinkState

CALL_TIMEOUT_S: Final = 5.0
ATTEMPTS: Final = 3
RETRY_PAUSE_S: Final = 0.1
PARALLEL_CALLS_MAX: Final = 16

_T = TypeVar("_T")
_library_lock = threading.Lock()


class ProxyServerError(Exception):
    """The proxy server cannot be reached, or refused; the text says what was asked."""


class _BoundedRequests:
    """The three functions of ``requests`` that toxiproxy-python calls, with a timeout."""

    @staticmethod
    def get(url: str, **kwargs: Any) -> requests.Response:
        return _checked(requests.get(url, timeout=CALL_TIMEOUT_S, **kwargs))

    @staticmethod
    def post(url: str, **kwargs: Any) -> requests.Response:
        return _checked(requests.post(url, timeout=CALL_TIMEOUT_S, **kwargs))

    @staticmethod
    def delete(url: str, **kwargs: Any) -> requests.Response:
        return _checked(requests.delete(url, timeout=CALL_TIMEOUT_S, **kwargs))


toxiproxy.api.requests = _BoundedRequests


def _checked(response: requests.Response) -> requests.Response:
    if response.status_code >= 500 or response.status_code in (403, 405, 413):
        raise ProxyServerError(
            f"{response.request.method} {response.request.url}: "
            f"{response.status_code} {response.text.strip()}"
        )
    return response


@attrs.frozen(slots=True)
class ServerVersion:
    """What answers: the Toxiproxy version whose API it speaks, and whether it is toxid."""

    version: str
    is_toxid: bool


class Proxies:
    """A proxy server, seen through toxiproxy-python.

    Args:
        address: "host:port" of its HTTP API.

    All methods raise ``ProxyServerError`` when the server cannot be reached in time, and the
    library's own ``NotFound``, ``ProxyExists`` and ``InvalidToxic``.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self._host, self._port = host, int(port)
        self._library = Toxiproxy()

    def version(self) -> ServerVersion:
        """Ask the server what it is."""
        answer = self._request("GET", "/version").json()
        return ServerVersion(answer["version"], answer.get("implementation") == "toxid")

    def create(self, name: str, upstream: str, listen: str = "127.0.0.1:0") -> str:
        """Create a proxy and return the "host:port" that it listens on."""
        proxy = self._retrying(
            lambda: self._library.create(upstream=upstream, name=name, listen=listen)
        )
        return str(proxy.listen)

    def proxies(self) -> Mapping[str, Proxy]:
        """Return the server's proxies by name, as toxiproxy-python's objects."""
        found: Mapping[str, Proxy] = self._retrying(self._library.proxies)
        return found

    def destroy_all(self) -> None:
        """Remove every proxy."""
        self._retrying(self._library.destroy_all)

    def reset(self) -> None:
        """Enable every proxy and remove every toxic."""
        self._retrying(self._library.reset)

    def add_toxic(
        self,
        proxy: str,
        kind: str,
        attributes: Mapping[str, float],
        stream: str = "downstream",
        toxicity: float = 1.0,
        name: str | None = None,
    ) -> str:
        """Add a toxic and return its name."""
        name = name or f"{kind}_{stream}"
        target = self._proxy(proxy)
        self._once(
            lambda: target.add_toxic(
                type=kind, name=name, stream=stream, toxicity=toxicity, attributes=dict(attributes)
            )
        )
        return name

    def update_toxic(
        self,
        proxy: str,
        toxic: str,
        attributes: Mapping[str, float],
        toxicity: float | None = None,
    ) -> dict[str, Any]:
        """Change attributes of a toxic, by PATCH, and return the toxic as it is now."""
        body: dict[str, Any] = {"attributes": dict(attributes)}
        if toxicity is not None:
            body["toxicity"] = toxicity
        answer = self._request("PATCH", f"/proxies/{proxy}/toxics/{toxic}", body)
        changed: dict[str, Any] = answer.json()
        return changed

    def remove_toxic(self, proxy: str, toxic: str) -> None:
        """Remove a toxic."""
        target = self._proxy(proxy)
        self._once(lambda: target.destroy_toxic(toxic))

    def set_links(self, states: Mapping[str, LinkState]) -> bool:
        """Give each of these proxies its state; return True if that was one instant.

        On toxid it is one. On Toxiproxy it is one PATCH for each proxy, sent in parallel, and only
        open and closed exist.
        """
        if self.version().is_toxid:
            links = {name: state.value for name, state in states.items()}
            self._request("POST", "/partition", {"links": links})
            return True
        if set(states.values()) - {LinkState.OPEN, LinkState.CLOSED}:
            raise ProxyServerError("Toxiproxy cannot stall a link; use toxid, or close it")
        wanted = [(name, state is LinkState.OPEN) for name, state in states.items()]
        with ThreadPoolExecutor(max_workers=min(PARALLEL_CALLS_MAX, len(wanted) or 1)) as pool:
            list(pool.map(lambda pair: self.set_enabled(*pair), wanted))
        return False

    def effects(self) -> dict[str, dict[str, int]]:
        """How often each toxic, and "cut", did something, by proxy. toxid only."""
        counts: dict[str, dict[str, int]] = self._request("GET", "/effects").json()
        return counts

    def set_enabled(self, proxy: str, enabled: bool) -> None:
        """Open or cut one proxy, by PATCH."""
        self._request("PATCH", f"/proxies/{proxy}", {"enabled": enabled})

    def _proxy(self, name: str) -> Proxy:
        found = self.proxies().get(name)
        if found is None:
            raise ProxyServerError(f"{self.address} has no proxy {name!r}")
        return found

    @contextmanager
    def _library_bound(self) -> Iterator[None]:
        with _library_lock:
            APIConsumer.host, APIConsumer.port = self._host, self._port
            yield

    def _once(self, call: Callable[[], _T]) -> _T:
        try:
            with self._library_bound():
                return call()
        except requests.RequestException as error:
            raise ProxyServerError(f"proxy server {self.address}: {error}") from error

    def _retrying(self, call: Callable[[], _T]) -> _T:
        """For calls that may be sent twice without harm."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(call)
            except ProxyServerError:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(RETRY_PAUSE_S)
        raise AssertionError("unreachable")

    def _request(self, method: str, path: str, body: object = None) -> requests.Response:
        url = f"http://{self.address}{path}"
        try:
            response = requests.request(method, url, json=body, timeout=CALL_TIMEOUT_S)
        except requests.RequestException as error:
            raise ProxyServerError(f"proxy server {self.address}: {error}") from error
        if response.status_code >= 400:
            raise ProxyServerError(
                f"{method} {url}: {response.status_code} {response.text.strip()}"
            )
        return response
