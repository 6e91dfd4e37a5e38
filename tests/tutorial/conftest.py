"""The tutorial's three nodes, started by its own three commands."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tutorial.shell import Running, require_free, words

NODES = (
    r"""etcd --name infra0 --initial-advertise-peer-urls http://10.0.1.10:2380 \
  --listen-peer-urls http://10.0.1.10:2380 \
  --listen-client-urls http://10.0.1.10:2379,http://127.0.0.1:2379 \
  --advertise-client-urls http://10.0.1.10:2379 \
  --initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380 \
  --initial-cluster-state new""",  # noqa: E501
    r"""etcd --name infra1 --initial-advertise-peer-urls http://10.0.1.11:2380 \
  --listen-peer-urls http://10.0.1.11:2380 \
  --listen-client-urls http://10.0.1.11:2379,http://127.0.0.1:2379 \
  --advertise-client-urls http://10.0.1.11:2379 \
  --initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380 \
  --initial-cluster-state new""",  # noqa: E501
    r"""etcd --name infra2 --initial-advertise-peer-urls http://10.0.1.12:2380 \
  --listen-peer-urls http://10.0.1.12:2380 \
  --listen-client-urls http://10.0.1.12:2379,http://127.0.0.1:2379 \
  --advertise-client-urls http://10.0.1.12:2379 \
  --initial-cluster infra0=http://10.0.1.10:2380,infra1=http://10.0.1.11:2380,infra2=http://10.0.1.12:2380 \
  --initial-cluster-state new""",  # noqa: E501
)

OWN_PORTS = (2379, 22379, 32379)
"""On one machine the client URL that the three share, http://127.0.0.1:2379, needs its own port;
these are the ports that the tutorial's Go programs connect to."""

ADVERTISED = ("127.0.1.10:2379", "127.0.1.11:2379", "127.0.1.12:2379")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    """The three nodes, started one after another in a directory of their own."""
    directory = tmp_path_factory.mktemp("tutorial")
    require_free([f"127.0.0.1:{port}" for port in OWN_PORTS])
    require_free([f"127.0.1.{host}:{port}" for host in (10, 11, 12) for port in (2379, 2380)])
    started: list[Running] = []
    try:
        for line, port in zip(NODES, OWN_PORTS, strict=True):
            here = line.replace("http://127.0.0.1:2379", f"http://127.0.0.1:{port}")
            log = directory / f"log{len(started)}"
            started.append(Running(words(here), log, directory))
        for node, client in zip(started, ADVERTISED, strict=True):
            node.wait_healthy(client)
        yield started
        assert [node.end(signal.SIGTERM) for node in started] == [0, 0, 0]
        for node in started:
            assert "Traceback" not in node.output()
    finally:
        for node in started:
            node.make_sure_that_it_ended()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[list[str]], Running]]:
    """Start commands in terminals of their own; they are ended with the test."""
    opened: list[Running] = []

    def start(command: list[str]) -> Running:
        opened.append(Running(command, tmp_path / f"terminal{len(opened)}"))
        return opened[-1]

    yield start
    for each in opened:
        each.make_sure_that_it_ended()
