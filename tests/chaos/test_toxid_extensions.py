"""What toxid adds to Toxiproxy: one-instant partitions, silent cuts, packet loss, a seed."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
import requests

from chaos.cluster.links import LinkState
from chaos.cluster.proxies import Proxies, ProxyServerError
from consensus.transport import wire_pb2 as wire
from consensus.transport.codec import PREFIX_BYTES, pack, unpack, unpack_prefix
from tests.chaos.conftest import EchoServer
from tests.chaos.test_toxid_contract import dial, receive, round_trip_s
from tests.waiting import wait_until_sync


@pytest.fixture
def toxid(toxid_address: str) -> Proxies:
    found = Proxies(toxid_address)
    found.destroy_all()
    return found


def test_stall_is_silent_and_loses_nothing(toxid: Proxies, echo: EchoServer) -> None:
    address = toxid.create("echo", echo.address)
    with dial(address) as sock:
        round_trip_s(sock)
        toxid.set_links({"echo": LinkState.STALLED})
        sock.sendall(b"held")
        sock.settimeout(0.15)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        with dial(address) as late:
            late.sendall(b"also held")
            late.settimeout(0.15)
            with pytest.raises(TimeoutError):
                late.recv(1)
            toxid.set_links({"echo": LinkState.OPEN})
            for held, text in ((sock, b"held"), (late, b"also held")):
                held.settimeout(5)
                assert receive(held, len(text)) == text


def test_stall_of_one_direction(toxid: Proxies) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = toxid.create("one-way", f"127.0.0.1:{server.getsockname()[1]}")
        with dial(address) as client:
            accepted, _ = server.accept()
            with accepted:
                toxid.set_links({"one-way": LinkState.STALLED_UPSTREAM})
                accepted.sendall(b"down")
                assert receive(client, 4) == b"down"
                client.sendall(b"up")
                accepted.settimeout(0.15)
                with pytest.raises(TimeoutError):
                    accepted.recv(1)
                toxid.set_links({"one-way": LinkState.OPEN})
                accepted.settimeout(5)
                assert receive(accepted, 2) == b"up"


def test_a_refused_partition_changes_nothing(toxid: Proxies, echo: EchoServer) -> None:
    toxid.create("a", echo.address)
    with pytest.raises(ProxyServerError, match="proxy not found"):
        toxid.set_links({"a": LinkState.CLOSED, "absent": LinkState.CLOSED})
    assert toxid.proxies()["a"].enabled


def test_heal_of_a_taken_port_is_refused_whole(toxid: Proxies, echo: EchoServer) -> None:
    addresses = {name: toxid.create(name, echo.address) for name in ("a", "b", "c")}
    toxid.set_links({"a": LinkState.CLOSED, "b": LinkState.CLOSED})
    opened = {"a": LinkState.OPEN, "b": LinkState.OPEN}
    host, _, port = addresses["b"].rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(ProxyServerError, match="cannot listen on"),
    ):
        toxid.set_links({**opened, "c": LinkState.CLOSED})
    states = {name: proxy.enabled for name, proxy in toxid.proxies().items()}
    assert states == {"a": False, "b": False, "c": True}
    toxid.set_links(opened)
    with dial(addresses["a"]) as sock:
        round_trip_s(sock)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"links": ["a"]}, "links should be of type dict"),
        ({"links": {"a": "gone"}}, "a: 'gone' should be one of open, closed, stalled"),
        ({"links": {"a": ["open"]}}, "a: ['open'] should be one of open, closed, stalled"),
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


def test_one_direction_after_the_other_and_from_closed_to_stalled(
    toxid: Proxies, echo: EchoServer
) -> None:
    """A state replaces the one before it, whatever that was."""
    address = toxid.create("echo", echo.address)
    with dial(address) as sock:
        round_trip_s(sock)
        toxid.set_links({"echo": LinkState.STALLED_DOWNSTREAM})
        toxid.set_links({"echo": LinkState.STALLED_UPSTREAM})
        sock.sendall(b"held")
        wait_until_sync(lambda: toxid.effects()["echo"].get("cut", 0) == 1)
        toxid.set_links({"echo": LinkState.CLOSED})
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
    toxid.set_links({"echo": LinkState.STALLED})
    with dial(address) as sock:
        sock.sendall(b"later")
        wait_until_sync(lambda: toxid.effects()["echo"]["cut"] > 2)
        toxid.set_links({"echo": LinkState.OPEN})
        sock.settimeout(10)
        assert receive(sock, 5) == b"later"


def test_effects_are_counted_and_forgotten_with_their_toxic(
    toxid: Proxies, echo: EchoServer
) -> None:
    address = toxid.create("echo", echo.address)
    name = toxid.add_toxic("echo", "latency", {"latency": 1})
    assert toxid.effects() == {"echo": {}}
    with dial(address) as sock:
        round_trip_s(sock)
    assert toxid.effects()["echo"][name] >= 1
    toxid.remove_toxic("echo", name)
    assert toxid.effects() == {"echo": {}}


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
    pattern: list[bool] = []
    with dial(address) as sock:
        sock.settimeout(0.01)
        for number in range(40):
            sock.sendall(bytes([number]))
            lost = pattern.count(False)
            arrived = b""

            def settled(lost: int = lost) -> bool:
                nonlocal arrived
                with contextlib.suppress(TimeoutError):
                    arrived = sock.recv(1)
                return bool(arrived) or sum(toxid.effects()["lossy"].values()) > lost

            wait_until_sync(settled)
            pattern.append(arrived == bytes([number]))
    return pattern


def test_the_seed_repeats_packet_loss(toxid: Proxies, echo: EchoServer) -> None:
    first, second = _lost_pattern(toxid, echo), _lost_pattern(toxid, echo)
    assert 5 <= sum(first) <= 35
    assert first == second


def test_lost_packets_come_late_in_order_and_whole(toxid: Proxies, echo: EchoServer) -> None:
    address = toxid.create("echo", echo.address)
    name = toxid.add_toxic("echo", "retransmit", {"loss_rate": 1.0, "delay": 60})
    payload = bytes(range(200))
    with dial(address) as sock:
        assert round_trip_s(sock, payload) >= 0.055
        toxid.remove_toxic("echo", name)
        round_trip_s(sock, payload)


def test_corruption_flips_one_bit_of_a_chunk(toxid: Proxies, echo: EchoServer) -> None:
    address = toxid.create("echo", echo.address)
    name = toxid.add_toxic("echo", "corrupt", {"rate": 1.0})
    with dial(address) as sock:
        sock.sendall(b"\0")
        assert receive(sock, 1)[0].bit_count() == 1
        toxid.remove_toxic("echo", name)
        round_trip_s(sock)


def hello(purpose: wire.Hello.Purpose.ValueType) -> bytes:
    return pack(wire.Envelope(hello=wire.Hello(version=1, sender="n1", purpose=purpose)))


def numbered(count: int) -> list[bytes]:
    return [pack(wire.Envelope(term=number + 1)) for number in range(count)]


def frames_in(data: bytes) -> list[int]:
    """The terms of the frames, the greeting's (0) too; fails if one is not whole."""
    terms = []
    while data:
        length, checksum = unpack_prefix(data[:PREFIX_BYTES])
        terms.append(unpack(data[PREFIX_BYTES : PREFIX_BYTES + length], checksum).term)
        data = data[PREFIX_BYTES + length :]
    return terms


def through_frames(
    toxid: Proxies,
    attributes: dict[str, float],
    purpose: wire.Hello.Purpose.ValueType = wire.Hello.MESSAGES,
) -> list[int]:
    """Send a greeting and 40 numbered frames in uneven pieces; what came out, by number."""
    toxid.destroy_all()
    data = hello(purpose) + b"".join(numbered(40))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = toxid.create("peer", f"127.0.0.1:{server.getsockname()[1]}")
        toxid.add_toxic("peer", "frames", attributes, stream="upstream")
        with dial(address) as sock:
            for start in range(0, len(data), 7):
                sock.sendall(data[start : start + 7])
        server.settimeout(10)
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(10)
            came = b""
            while part := accepted.recv(65536):
                came += part
    return frames_in(came)


ALL_FRAMES = list(range(41))


def test_frames_vanish_whole(toxid: Proxies) -> None:
    came = through_frames(toxid, {"drop": 0.5})
    assert came[0] == 0
    assert came == sorted(came)
    assert 5 <= len(came) <= 36


def test_frames_come_twice(toxid: Proxies) -> None:
    came = through_frames(toxid, {"duplicate": 0.5, "late": 4})
    assert sorted(set(came)) == ALL_FRAMES
    assert 45 <= len(came) <= 76
    assert came.count(0) == 1


def test_frames_overtake_each_other(toxid: Proxies) -> None:
    came = through_frames(toxid, {"reorder": 0.5, "late": 4})
    assert sorted(came) == ALL_FRAMES
    assert came != ALL_FRAMES
    assert max(abs(place - number) for place, number in enumerate(came)) <= 8


def test_the_seed_repeats_what_happens_to_frames(toxid: Proxies) -> None:
    attributes = {"drop": 0.2, "duplicate": 0.2, "reorder": 0.2}
    assert through_frames(toxid, attributes) == through_frames(toxid, attributes)


def test_a_snapshot_is_left_alone(toxid: Proxies) -> None:
    came = through_frames(toxid, {"drop": 1.0}, wire.Hello.SNAPSHOT)
    assert came == ALL_FRAMES


def test_what_is_no_frame_is_left_alone(toxid: Proxies, echo: EchoServer) -> None:
    address = toxid.create("echo", echo.address)
    toxid.add_toxic("echo", "frames", {"drop": 1.0})
    with dial(address) as sock:
        round_trip_s(sock, struct.pack("<II", 2**32 - 1, 0) + b"nonsense")


def test_connections_that_were_there_before_are_left_alone(
    toxid: Proxies, echo: EchoServer
) -> None:
    address = toxid.create("echo", echo.address)
    with dial(address) as sock:
        round_trip_s(sock)
        toxid.add_toxic("echo", "frames", {"drop": 1.0})
        round_trip_s(sock, b"".join(numbered(3)))
