"""One contract for toxid and for the real Toxiproxy: the same client, the same effects."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
import requests
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from chaos.cluster.links import LinkState
from chaos.cluster.proxies import Proxies, ProxyServerError
from tests.chaos.conftest import EchoServer
from tests.waiting import wait_until_sync

pytestmark = pytest.mark.interop

PATIENCE_S = 5.0


@contextlib.contextmanager
def dial(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as sock:
        yield sock


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


def round_trip_s(sock: socket.socket, payload: bytes = b"ping") -> float:
    began = time.monotonic()
    sock.sendall(payload)
    assert receive(sock, len(payload)) == payload
    return time.monotonic() - began


def fastest_s(sock: socket.socket) -> float:
    """The best of a few round trips: a busy machine makes single ones slow."""
    return min(round_trip_s(sock) for _ in range(5))


@pytest.fixture
def listen(proxies: Proxies, echo: EchoServer) -> str:
    return proxies.create("echo", echo.address)


def test_version_says_which_server(proxies: Proxies, request: pytest.FixtureRequest) -> None:
    version = proxies.version()
    assert version.version
    assert version.is_toxid == ("toxid" in request.node.name)


def test_a_proxy_carries_bytes_both_ways(listen: str) -> None:
    payload = bytes(range(256)) * 4096
    with dial(listen) as sock:
        sock.settimeout(PATIENCE_S)
        sock.sendall(payload[:500_000])
        assert receive(sock, 500_000) == payload[:500_000]


def test_create_list_and_destroy(proxies: Proxies, echo: EchoServer) -> None:
    proxies.create("a", echo.address)
    proxies.create("b", echo.address)
    assert set(proxies.proxies()) == {"a", "b"}
    with pytest.raises(ProxyExists):
        proxies.create("a", echo.address)
    proxies.destroy_all()
    assert proxies.proxies() == {}


def test_end_of_stream_passes(proxies: Proxies) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = proxies.create("silent", f"127.0.0.1:{server.getsockname()[1]}")
        with dial(address) as client:
            accepted, _ = server.accept()
            client.close()
            accepted.settimeout(PATIENCE_S)
            assert accepted.recv(1) == b""
            accepted.close()


def test_disabled_drops_and_refuses_until_enabled(proxies: Proxies, listen: str) -> None:
    with dial(listen) as sock:
        round_trip_s(sock)
        proxies.set_enabled("echo", False)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError), dial(listen):
            pass
        assert proxies.proxies()["echo"].enabled is False
    proxies.set_enabled("echo", True)
    with dial(listen) as sock:
        round_trip_s(sock)


def test_a_set_of_links_closes_and_opens(proxies: Proxies, echo: EchoServer) -> None:
    addresses = {name: proxies.create(name, echo.address) for name in ("a", "b", "c")}
    at_once = proxies.set_links({"a": LinkState.CLOSED, "b": LinkState.CLOSED})
    assert at_once == proxies.version().is_toxid
    for name in ("a", "b"):
        with pytest.raises(ConnectionRefusedError), dial(addresses[name]):
            pass
    with dial(addresses["c"]) as sock:
        round_trip_s(sock)
    proxies.set_links({"a": LinkState.OPEN, "b": LinkState.OPEN})
    for address in addresses.values():
        with dial(address) as sock:
            round_trip_s(sock)


def test_upstream_down_closes_the_client(proxies: Proxies) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        upstream = f"127.0.0.1:{gone.getsockname()[1]}"
    with dial(proxies.create("gone", upstream)) as sock, contextlib.suppress(ConnectionError):
        assert sock.recv(1) == b""


def test_latency_delays_and_can_be_changed_and_removed(proxies: Proxies, listen: str) -> None:
    with dial(listen) as sock:
        assert fastest_s(sock) < 0.08
        name = proxies.add_toxic("echo", "latency", {"latency": 100})
        assert 0.095 <= round_trip_s(sock) < PATIENCE_S
        changed = proxies.update_toxic("echo", name, {"latency": 200})
        assert changed["attributes"] == {"latency": 200, "jitter": 0}
        assert 0.195 <= round_trip_s(sock) < PATIENCE_S
        proxies.remove_toxic("echo", name)
        assert fastest_s(sock) < 0.08


def test_latency_of_one_direction_adds_to_the_other(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "latency", {"latency": 60}, stream="upstream")
    proxies.add_toxic("echo", "latency", {"latency": 60}, stream="downstream")
    with dial(listen) as sock:
        assert 0.115 <= round_trip_s(sock) < PATIENCE_S


def test_bandwidth_limits_the_rate(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "bandwidth", {"rate": 100})
    with dial(listen) as sock:
        assert 0.25 <= round_trip_s(sock, b"x" * 30_000) < PATIENCE_S


def test_timeout_zero_swallows_and_closes_when_removed(proxies: Proxies, listen: str) -> None:
    with dial(listen) as sock:
        round_trip_s(sock)
        name = proxies.add_toxic("echo", "timeout", {"timeout": 0})
        sock.sendall(b"lost")
        sock.settimeout(0.15)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        proxies.remove_toxic("echo", name)
        sock.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""


def test_timeout_closes_after_its_time(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "timeout", {"timeout": 100})
    with dial(listen) as sock:
        began = time.monotonic()
        sock.sendall(b"lost")
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
        assert 0.09 <= time.monotonic() - began < PATIENCE_S


def test_slow_close_holds_the_end_back(proxies: Proxies) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = proxies.create("server", f"127.0.0.1:{server.getsockname()[1]}")
        proxies.add_toxic("server", "slow_close", {"delay": 150})
        with dial(address) as client:
            accepted, _ = server.accept()
            accepted.sendall(b"bye")
            began = time.monotonic()
            accepted.close()
            assert receive(client, 3) == b"bye"
            assert client.recv(1) == b""
            assert 0.14 <= time.monotonic() - began < PATIENCE_S


def test_reset_peer_resets(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "reset_peer", {"timeout": 50})
    with dial(listen) as sock:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_slicer_keeps_every_byte(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "slicer", {"average_size": 100, "size_variation": 30, "delay": 10})
    payload = bytes(range(250)) * 20
    with dial(listen) as sock:
        round_trip_s(sock, payload)


def test_limit_data_closes_after_so_many_bytes(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "limit_data", {"bytes": 10})
    with dial(listen) as sock:
        sock.sendall(b"0123456789abcdef")
        assert receive(sock, 16) == b"0123456789"


def test_toxicity_zero_touches_nothing(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "latency", {"latency": 1000}, toxicity=0.0)
    with dial(listen) as sock:
        assert fastest_s(sock) < 0.5


def test_reset_enables_and_cleans(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "latency", {"latency": 1000})
    proxies.set_enabled("echo", False)
    proxies.reset()
    assert proxies.proxies()["echo"].toxics() == {}
    with dial(listen) as sock:
        assert fastest_s(sock) < 0.5


def test_toxics_of_the_library_objects(proxies: Proxies, listen: str) -> None:
    proxies.add_toxic("echo", "latency", {"latency": 5, "jitter": 2}, name="slow", toxicity=0.5)
    toxic = proxies.proxies()["echo"].get_toxic("slow")
    assert toxic is not None
    assert (toxic.type, toxic.stream, toxic.toxicity) == ("latency", "downstream", 0.5)
    assert toxic.attributes == {"latency": 5, "jitter": 2}


def test_refusals(proxies: Proxies, listen: str) -> None:
    with pytest.raises(InvalidToxic, match="invalid toxic type"):
        proxies.add_toxic("echo", "gremlin", {})
    with pytest.raises(InvalidToxic, match="stream was invalid"):
        proxies.add_toxic("echo", "latency", {}, stream="sideways")
    with pytest.raises(InvalidToxic, match="bad request body"):
        proxies.add_toxic("echo", "latency", {"latency": "soon"})  # type: ignore[dict-item]
    proxies.add_toxic("echo", "latency", {"latency": 1})
    with pytest.raises(ProxyExists, match="toxic already exists"):
        proxies.add_toxic("echo", "latency", {"latency": 1})
    with pytest.raises(NotFound, match="toxic not found"):
        proxies.remove_toxic("echo", "absent")
    with pytest.raises(ProxyServerError, match="404"):
        proxies.update_toxic("absent", "latency_downstream", {})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/proxies", "{", 400, "bad request body"),
        ("POST", "/proxies", '{"upstream": "127.0.0.1:1"}', 400, "missing required field: name"),
        ("POST", "/proxies", '{"name": "x"}', 400, "missing required field: upstream"),
        ("POST", "/proxies", '{"name": 5}', 400, "bad request body"),
        ("POST", "/populate", '[{"name": "x"}]', 400, "missing required field: upstream"),
        ("GET", "/proxies/absent", None, 404, "proxy not found"),
        ("PATCH", "/proxies/absent", "{}", 404, "proxy not found"),
        ("GET", "/proxies/echo/toxics/absent", None, 404, "toxic not found"),
        ("DELETE", "/proxies/absent", None, 404, "proxy not found"),
    ],
)
def test_errors_name_what_is_wrong(
    proxies: Proxies,
    listen: str,
    method: str,
    path: str,
    body: str | None,
    status: int,
    text: str,
) -> None:
    answer = requests.request(method, f"http://{proxies.address}{path}", data=body, timeout=5)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.json()["error"].startswith(text)


def test_http_details(proxies: Proxies, echo: EchoServer) -> None:
    base = f"http://{proxies.address}"
    browser = requests.get(f"{base}/proxies", headers={"User-Agent": "Mozilla/5.0"}, timeout=5)
    assert browser.status_code == 403
    assert requests.get(f"{base}/nothing", timeout=5).status_code == 404
    assert requests.put(f"{base}/proxies", timeout=5).status_code == 405
    populated = requests.post(
        f"{base}/populate", json=[{"name": "p", "upstream": echo.address}], timeout=5
    )
    assert populated.status_code == 201
    assert [proxy["name"] for proxy in populated.json()["proxies"]] == ["p"]
    assert requests.delete(f"{base}/proxies/p", timeout=5).status_code == 204


def test_moving_a_proxy_drops_its_connections(
    proxies: Proxies, listen: str, echo: EchoServer
) -> None:
    other = EchoServer()
    try:
        with dial(listen) as sock:
            round_trip_s(sock)
            requests.patch(
                f"http://{proxies.address}/proxies/echo",
                json={"upstream": other.address},
                timeout=5,
            ).raise_for_status()
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""

        def carries() -> bool:
            try:
                with dial(listen) as again:
                    round_trip_s(again)
            except OSError:
                return False
            return True

        wait_until_sync(carries, PATIENCE_S)
        assert proxies.proxies()["echo"].upstream == other.address
    finally:
        other.close()
