"""What toxid adds to Toxiproxy: one-instant partitions, silent cuts, packet loss, a seed."""

from __future__ import annotations

import contextlib
import socket

import pytest
import requests

from chaos.cluster.proxies import Proxies, ProxyServerError
from tests.chaos.conftest import EchoServer
from tests.chaos.test_toxid_contract import dial, receive, round_trip_s


@pytest.fixture
def toxid(toxid_address: str) -> Proxies:
    found = Proxies(toxid_address)
    found.destroy_all()
    return found


def test_stall_is_silent_and_loses_nothing(toxid: Proxies, echo: EchoServer) -> None:
    address = toxid.create("echo", echo.address)
    with dial(address) as sock:
        round_trip_s(sock)
        toxid.switch(cut=["echo"], mode="stall")
        sock.sendall(b"held")
        sock.settimeout(0.15)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        with dial(address) as late:
            late.sendall(b"also held")
            late.settimeout(0.15)
            with pytest.raises(TimeoutError):
                late.recv(1)
            toxid.switch(heal=["echo"])
            for held, text in ((sock, b"held"), (late, b"also held")):
                held.settimeout(5)
                assert receive(held, len(text)) == text


def test_stall_of_one_direction(toxid: Proxies) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = toxid.create("one-way", f"127.0.0.1:{server.getsockname()[1]}")
        with dial(address) as client:
            accepted, _ = server.accept()
            with accepted:
                answer = requests.post(
                    f"http://{toxid.address}/partition",
                    json={"cut": ["one-way"], "mode": "stall", "stream": "upstream"},
                    timeout=5,
                )
                assert answer.status_code == 200
                accepted.sendall(b"down")
                assert receive(client, 4) == b"down"
                client.sendall(b"up")
                accepted.settimeout(0.15)
                with pytest.raises(TimeoutError):
                    accepted.recv(1)
                toxid.switch(heal=["one-way"])
                accepted.settimeout(5)
                assert receive(accepted, 2) == b"up"


def test_a_refused_partition_changes_nothing(toxid: Proxies, echo: EchoServer) -> None:
    toxid.create("a", echo.address)
    with pytest.raises(ProxyServerError, match="proxy not found"):
        toxid.switch(cut=["a", "absent"])
    assert toxid.proxies()["a"].enabled


def test_heal_of_a_taken_port_is_refused_whole(toxid: Proxies, echo: EchoServer) -> None:
    addresses = {name: toxid.create(name, echo.address) for name in ("a", "b", "c")}
    toxid.switch(cut=["a", "b"])
    host, _, port = addresses["b"].rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(ProxyServerError, match="cannot listen on"),
    ):
        toxid.switch(heal=["a", "b"], cut=["c"])
    states = {name: proxy.enabled for name, proxy in toxid.proxies().items()}
    assert states == {"a": False, "b": False, "c": True}
    toxid.switch(heal=["a", "b"])
    with dial(addresses["a"]) as sock:
        round_trip_s(sock)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"cut": ["a"], "heal": ["a"]}, "both to cut and to heal: a"),
        ({"cut": "a"}, "cut should be of type list"),
        ({"cut": [1]}, "list of names"),
        ({"mode": "gently"}, "mode should be close or stall"),
        ({"stream": "sideways"}, "stream should be"),
    ],
)
def test_partition_refuses_nonsense(
    toxid: Proxies, echo: EchoServer, body: dict[str, object], text: str
) -> None:
    toxid.create("a", echo.address)
    answer = requests.post(f"http://{toxid.address}/partition", json=body, timeout=5)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "attributes", "text"),
    [
        ("latency", {"latecy": 5}, "has no attribute 'latecy'; it has jitter, latency"),
        ("latency", {"latency": -1}, "must not be negative"),
        ("latency", {"latency": 1.5}, "whole number"),
        ("slicer", {"average_size": 5, "size_variation": 5}, "less than average_size"),
        ("packet_loss", {"loss_rate": 2}, "between 0 and 1"),
    ],
)
def test_wrong_attributes_are_named(
    toxid: Proxies, echo: EchoServer, kind: str, attributes: dict[str, float], text: str
) -> None:
    toxid.create("a", echo.address)
    answer = requests.post(
        f"http://{toxid.address}/proxies/a/toxics",
        json={"type": kind, "attributes": attributes},
        timeout=5,
    )
    assert answer.status_code == 400
    assert text in answer.json()["error"]


def test_metrics_count_bytes(toxid: Proxies, echo: EchoServer) -> None:
    with dial(toxid.create("counted", echo.address)) as sock:
        round_trip_s(sock, b"x" * 1000)
    text = requests.get(f"http://{toxid.address}/metrics", timeout=5).text
    line = next(
        line
        for line in text.splitlines()
        if line.startswith("toxiproxy_proxy_sent_bytes_total") and '"downstream"' in line
    )
    assert line.endswith(" 1000")


def _lost_pattern(toxid: Proxies, echo: EchoServer) -> list[bool]:
    """Which of 40 one-byte messages come back through 50 % loss on one fresh connection."""
    toxid.destroy_all()
    address = toxid.create("lossy", echo.address)
    toxid.add_toxic("lossy", "packet_loss", {"loss_rate": 0.5})
    pattern = []
    with dial(address) as sock:
        sock.settimeout(0.03)
        for number in range(40):
            message = bytes([number])
            sock.sendall(message)
            arrived = b""
            with contextlib.suppress(TimeoutError):
                arrived = sock.recv(1)
            pattern.append(arrived == message)
    return pattern


def test_the_seed_repeats_packet_loss(toxid: Proxies, echo: EchoServer) -> None:
    first, second = _lost_pattern(toxid, echo), _lost_pattern(toxid, echo)
    assert 5 <= sum(first) <= 35
    assert first == second
