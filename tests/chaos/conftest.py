"""Fixtures of the chaos tests: proxy servers, and an echo server behind them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from chaos.cluster.proxies import Proxies
from chaos.cluster.proxyserver import ProxyServer
from tests.interop import require_program


@pytest.fixture(scope="module", params=["toxid", "toxiproxy"])
def server_address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The API address of a running proxy server: ours, then the real one."""
    program = None if request.param == "toxid" else require_program("toxiproxy-server")
    log = tmp_path_factory.mktemp("proxyserver") / "log"
    server = ProxyServer(log, seed=1, program=program)
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def proxies(server_address: str) -> Iterator[Proxies]:
    """The server with no proxies, through toxiproxy-python."""
    found = Proxies(server_address)
    found.destroy_all()
    yield found
    found.destroy_all()


@pytest.fixture(scope="module")
def toxid_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API address of a running toxid."""
    server = ProxyServer(tmp_path_factory.mktemp("toxid") / "log", seed=7)
    server.start()
    yield server.address
    server.stop()


class EchoServer:
    """Answers every byte with itself, one thread for each connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        """Stop accepting."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """A running echo server."""
    server = EchoServer()
    yield server
    server.close()
