"""The chapters on Go: each program, on etcd's own client, against the three nodes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from kvstore.client import Client
from tests.interop import require_program
from tests.tutorial.conftest import ADVERTISED, OWN_PORTS
from tests.tutorial.shell import FIXED_PORTS, Running

pytestmark = [FIXED_PORTS, pytest.mark.interop, pytest.mark.usefixtures("nodes")]

Terminal = Callable[[list[str]], Running]

ENDPOINTS = ",".join(f"localhost:{port}" for port in OWN_PORTS)
"""As the tutorial writes them: localhost:2379, localhost:22379, localhost:32379."""


def command(*arguments: str, endpoints: str = ENDPOINTS) -> list[str]:
    """The command line of one of the programs."""
    return [require_program("interop"), endpoints, *arguments]


def go(*arguments: str, endpoints: str = ENDPOINTS) -> str:
    """Run one of the programs to its end and return what it printed."""
    done = subprocess.run(
        command(*arguments, endpoints=endpoints), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout.decode()


def test_put_get_prefix_delete() -> None:
    assert go("put") == ""
    assert go("get") == "/tizi365/url : www.tizi365.com\n"
    assert go("prefix") == (
        "/tizi365/site/domain : www.tizi365.com\n"
        "/tizi365/site/name : tizi365\n"
        "/tizi365/url : www.tizi365.com\n"
    )
    assert go("delete") == "deleted 1\n"
    assert go("get") == ""
    assert go("delete-prefix") == "deleted 2\n"
    assert go("prefix") == ""
    assert go("delete-prefix") == "deleted 0\n"


@pytest.mark.parametrize("member", ADVERTISED)
def test_each_member_alone_serves_the_client(member: str) -> None:
    assert go("put", endpoints=member) == ""
    for other in ADVERTISED:
        assert go("get", endpoints=other) == "/tizi365/url : www.tizi365.com\n"


def test_watch_a_key(terminal: Terminal) -> None:
    watching = terminal(command("watch", "2"))
    watching.wait_for("watching\n")
    put("/tizi365", "outside")
    put("/tizi", 'a "quoted"\nvalue')
    delete("/tizi")
    assert watching.process.wait(20) == 0
    assert watching.output() == (
        'watching\nPUT "/tizi" : "a \\"quoted\\"\\nvalue"\nDELETE "/tizi" : ""\n'
    )


def test_watch_a_prefix(terminal: Terminal) -> None:
    go("delete-prefix")
    watching = terminal(command("watch-prefix", "7"))
    watching.wait_for("watching\n")
    go("put")
    go("delete")
    go("delete-prefix")
    assert watching.process.wait(20) == 0
    assert watching.output() == (
        "watching\n"
        'PUT "/tizi365/url" : "www.tizi365.com"\n'
        'PUT "/tizi365/site/name" : "tizi365"\n'
        'PUT "/tizi365/site/domain" : "www.tizi365.com"\n'
        'PUT "/tizi365x" : "outside of the prefix"\n'
        'DELETE "/tizi365/url" : ""\n'
        'DELETE "/tizi365/site/domain" : ""\n'
        'DELETE "/tizi365/site/name" : ""\n'
    )


def put(key: str, value: str) -> None:
    """Change a key through another node than the one that is watched."""
    with Client(ADVERTISED[2]) as client:
        client.put(key, value)


def delete(key: str) -> None:
    with Client(ADVERTISED[1]) as client:
        client.delete(key)
