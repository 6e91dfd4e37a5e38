"""``raftyard``: serve, call, query, status; and one clear line for everything that goes wrong."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from click.testing import CliRunner, Result

from consensus.cli import main
from consensus.engines.local import LocalEngine
from consensus.server import describe
from consensus.tls import TlsFiles, client_context
from consensus.types import Member, NodeStatus
from tests.certificates import Authority
from tests.consensus.served import Served
from tests.interop import free_ports
from tests.waiting import wait_until_sync

ON_PYSYNCOBJ = ("statemachines:Counter", "--engine", "pysyncobj")


def raftyard(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), size=1) as served:
        endpoint = served.endpoints[0]
        wait_until_sync(lambda: raftyard("status", "--endpoints", endpoint).exit_code == 0, 30.0)
        yield served


def test_a_served_machine_is_called_and_queried(alone: Served) -> None:
    endpoint = ("--endpoints", alone.endpoints[0])
    done = raftyard("call", "add", "text=first note", *endpoint)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "1\n", "")
    assert raftyard("call", "add", 'text="22"', *endpoint).stdout == "2\n"
    assert raftyard("query", "all", *endpoint).stdout == '["first note", "22"]\n'
    assert raftyard("query", "all", "--serializable", *endpoint).exit_code == 0
    raw = '{"method": "all", "args": {}}'
    assert raftyard("query", "--raw", raw, *endpoint).stdout == '["first note", "22"]\n'


def test_a_refusal_is_one_line(alone: Served) -> None:
    endpoint = ("--endpoints", alone.endpoints[0])
    done = raftyard("call", "add", "text=", *endpoint)
    assert (done.exit_code, done.stderr) == (1, "raftyard: refused: a note needs a text\n")
    done = raftyard("call", "remove", *endpoint)
    assert done.exit_code == 1
    assert (
        done.stderr == "raftyard: refused: Notes has no method 'remove'; it has: add, all, fail\n"
    )
    done = raftyard("call", "add", "note", *endpoint)
    assert done.stderr == "raftyard: argument 'note' is not name=value\n"


def test_status_describes_the_member(alone: Served) -> None:
    endpoint = alone.endpoints[0]
    (status,) = json.loads(raftyard("status", "--json", "--endpoints", endpoint).stdout).values()
    assert (status["name"], status["role"], status["leader"]) == ("ann", "leader", "ann")
    assert status["has_quorum"] and not status["halted"]
    assert any("damaged disk" in note for note in status["notes"])
    (port,) = free_ports(1)
    done = raftyard("status", "--endpoints", f"{endpoint},127.0.0.1:{port}", "--timeout", "1")
    assert done.exit_code == 1
    assert "leader" in done.stdout and "failed" in done.stdout
    assert done.stderr == ""


def test_a_status_is_json_whatever_is_kept_with_a_member() -> None:
    member = Member("ann", "127.0.0.1:1", context=b"\xff")
    status = attrs.evolve(LocalEngine("ann").status(), members=(member,))
    described = describe(NodeStatus(status, 0, 0, 0))
    assert json.loads(json.dumps(described))["members"] == [
        {"id": "ann", "address": "127.0.0.1:1", "learner": False, "context": {"base64": "/w=="}}
    ]


def test_the_state_is_hashed_where_it_stands(alone: Served) -> None:
    def hashed() -> dict[str, Any]:
        return dict(httpx.get(f"http://{alone.endpoints[0]}/hash", timeout=10.0).json())

    before = hashed()
    assert raftyard("call", "add", "text=x", "--endpoints", alone.endpoints[0]).exit_code == 0
    after = hashed()
    assert after["applied_index"] > before["applied_index"]
    assert len(after["hash"]) == len(before["hash"]) == 64
    assert after["hash"] != before["hash"]


def test_nobody_there_is_one_line() -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    done = raftyard("call", "add", "text=x", "--endpoints", address, "--timeout", "0.3")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"raftyard: http://{address} cannot be reached")
    assert len(done.stderr.splitlines()) == 1


def test_the_installed_command_is_the_same(alone: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "consensus.cli", "query", "all", "--endpoints", alone.endpoints[0]],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith(b"[")


def test_it_ends_at_sigterm_and_keeps_what_it_has(tmp_path: Path) -> None:
    with Served(tmp_path, size=1) as served:
        endpoint = ("--endpoints", served.endpoints[0], "--timeout", "20")
        assert raftyard("call", "add", "text=kept", *endpoint).stdout == "1\n"
        process = served.processes["ann"]
        served.kill("ann", signal.SIGTERM)
        assert process.returncode == 0
        served.launch("ann")
        assert raftyard("query", "all", *endpoint).stdout == '["kept"]\n'
        assert "Traceback" not in served.log("ann").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["counter"], "'counter' is not module:Machine"),
        (["no_such_module:X"], "cannot import 'no_such_module'.*Check the spelling"),
        (["tests.consensus.served:Nots"], "has no 'Nots'; it has the machines .*Notes"),
        (["tests.consensus.served:NAMES"], "neither a state machine nor a function"),
        (["os:getcwd"], "makes a str, which is no StateMachine"),
        (["consensus:StateMachine"], "cannot be made"),
        (["statemachines:Counter", "--listen-peer-urls", "2380"], "'2380' is not http://host:port"),
        (["statemachines:Counter", "--initial-cluster", "a"], "'a' is not name=http://host:port"),
        (
            ["statemachines:Counter", "--listen-peer-urls", "https://[::1"],
            "--listen-peer-urls: 'https://.::1' is not http://host:port or https://host:port",
        ),
        (
            [
                *("statemachines:Counter", "--engine", "local"),
                *("--listen-peer-urls", "garbage", "--initial-cluster", "default=http://a:1"),
            ],
            "--listen-peer-urls: 'garbage' is not",
        ),
        (
            ["statemachines:Counter", "--initial-cluster", "default="],
            "--initial-cluster: '' is not http://host:port",
        ),
        (
            ["statemachines:Counter", "--listen-peer-urls", "http://a:1,http://b:1"],
            "--listen-peer-urls: one URL is served, not 2",
        ),
        (
            ["statemachines:Counter", "--engine", "local", "--peer-trusted-ca-file", "ca.pem"],
            "--engine local has no TLS between members: remove the --peer-.-file flags",
        ),
        (
            ["statemachines:Counter", "--initial-cluster", "a=http://127.0.0.1:1"],
            "does not name this member, 'default'",
        ),
        (
            [*ON_PYSYNCOBJ, "--listen-peer-urls", "http://192.0.2.1:2380"],
            "not on the loopback interface.*--peer-password-file",
        ),
        ([*ON_PYSYNCOBJ, "--peer-password-file", "/no/such"], "No such file"),
        (
            ["statemachines:Counter", "--peer-password-file", "/no/such"],
            "--peer-password-file belongs to --engine pysyncobj",
        ),
        (
            ["statemachines:Counter", "--listen-peer-urls", "http://192.0.2.1:2380"],
            "cannot listen for peers on 192.0.2.1:2380",
        ),
        (
            ["statemachines:Counter", "--listen-peer-urls", "https://127.0.0.1:1"],
            "--peer-cert-file, --peer-key-file.* must be provided for peer url https://127.0.0.1:1",
        ),
        (
            ["statemachines:Counter", "--peer-cert-file", "c.pem", "--peer-key-file", "c.key"],
            "http://localhost:2380 is not an https:// URL",
        ),
        (
            [
                *("statemachines:Counter", "--listen-peer-urls", "https://127.0.0.1:1"),
                *("--initial-cluster", "default=http://127.0.0.1:1"),
            ],
            "must all be https:// or none of them",
        ),
        (
            [*ON_PYSYNCOBJ, "--listen-peer-urls", "https://127.0.0.1:1"],
            "--engine pysyncobj has no TLS between members",
        ),
        (
            ["statemachines:Counter", "--listen-client-urls", "https://127.0.0.1:1"],
            "--listen-client-urls: 'https://127.0.0.1:1' is not http://host:port",
        ),
        ([*ON_PYSYNCOBJ, "--election-timeout", "100"], "more than 4 times"),
        (["statemachines:Counter", "--election-timeout", "100"], "at least 5 times"),
        (["statemachines:Counter", "--heartbeat-interval", "0"], "0 ms must be at least 1"),
        (["statemachines:Counter", "--snapshot-count", "0"], "must be at least 1"),
    ],
)
def test_a_wrong_start_is_one_clear_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    import re

    done = raftyard("serve", *arguments, "--data-dir", str(tmp_path / "data"))
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stdout + done.stderr
    assert re.search(said, done.stderr), done.stderr


def test_members_speak_tls_to_each_other_and_to_nobody_else(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.sign("member")
    flags = ("--peer-cert-file", str(cert), "--peer-key-file", str(key))
    trust = ("--peer-trusted-ca-file", str(authority.file))
    with Served(tmp_path, *flags, *trust, peer_scheme="https") as served:
        endpoints = ("--endpoints", ",".join(served.endpoints), "--timeout", "20")
        assert raftyard("call", "add", "text=kept from others", *endpoints).stdout == "1\n"
        assert raftyard("query", "all", *endpoints).stdout == '["kept from others"]\n'
        host, _, port = served.peers["ann"].rpartition(":")
        member = client_context(TlsFiles(cert=cert, key=key, trusted_ca=authority.file))
        nameless = client_context(TlsFiles(trusted_ca=authority.file))
        with (
            socket.create_connection((host, int(port)), timeout=20) as plain,
            member.wrap_socket(plain, server_hostname=host) as secured,
        ):
            assert secured.getpeercert()
        with (
            pytest.raises((ssl.SSLError, ConnectionResetError)),
            socket.create_connection((host, int(port)), timeout=20) as plain,
            nameless.wrap_socket(
                plain, server_hostname=host, suppress_ragged_eofs=False
            ) as secured,
        ):
            secured.recv(1)  # who is let in and says nothing gets a proper end after a while


def test_taken_addresses_are_named(tmp_path: Path) -> None:
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        urls = {"--listen-peer-urls": address, "--listen-client-urls": f"127.0.0.1:{free}"}
        for swapped, what in ((False, "peers"), (True, "clients")):
            values = list(urls.values())[:: -1 if swapped else 1]
            flags = [
                part
                for flag, value in zip(urls, values, strict=True)
                for part in (flag, f"http://{value}")
            ]
            done = raftyard(
                "serve", "statemachines:Counter", "--data-dir", str(tmp_path / what), *flags
            )
            assert done.exit_code == 1
            assert f"cannot listen for {what} on {address}" in done.stderr
            assert "Traceback" not in done.stdout + done.stderr
