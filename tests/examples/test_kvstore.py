"""The five uses on three processes: kvstore, and etcd, whose clients they are too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters import Cluster, Program
from tests.examples.stories import run_example, tell
from tests.interop import free_ports, require_program


@pytest.fixture(scope="module", params=["kvstore", pytest.param("etcd", marks=pytest.mark.interop)])
def endpoints(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Three members, as the examples take them."""
    if request.param == "etcd":
        require_program("etcd")
    program = Program.etcd() if request.param == "etcd" else Program.kvstore()
    with Cluster(program, tmp_path_factory.mktemp(program.name)) as cluster:
        yield ",".join(cluster.endpoints)


def test_configuration(endpoints: str) -> None:
    story = tell("kvstore.configuration", endpoints)
    assert "alice: done\n" in story
    assert "bob: refused, someone else changed it\n" in story
    heard = [line for line in story.splitlines() if line.startswith("program: /")]
    assert heard == [
        "program: /examples/config/title is now by alice",
        "program: /examples/config/debug is now on",
        "program: /examples/config/debug is gone",
        "program: /examples/config/stop is now yes",
    ]


def test_service_discovery(endpoints: str) -> None:
    story = tell("kvstore.service_discovery", endpoints)
    for line in (
        "client: web-1 is at 10.0.1.10:80\n",
        "client: web-2 is at 10.0.1.11:80\n",
        "client: web-2 is gone; left: ['web-1']\n",
    ):
        assert line in story
    assert story.endswith("client: web-1 is gone; left: []\n")


def test_leader_election(endpoints: str) -> None:
    story = tell("kvstore.leader_election", endpoints)
    for name in ("host-1", "host-2", "host-3"):
        assert f"{name}: leads, term " in story
        assert f"{name}: writes\n" in story
    assert "observer: the leader is host-" in story
    assert "host-1, back from a long pause: may not write: it leads no longer\n" in story
    assert story.endswith("3 terms, each larger than the last\n")


def test_scheduling(endpoints: str) -> None:
    story = tell("kvstore.scheduling", endpoints)
    assert story.startswith("lost worker: takes fetch\n")
    assert "lost worker: fetch was given to another\n" in story
    assert story.endswith("done: fetch, resize, upload\n")
    assert story.count(" is done\n") == 3


def test_distributed_lock(endpoints: str) -> None:
    story = tell("kvstore.distributed_lock", endpoints)
    assert "the number is 9 after 9 turns\n" in story
    assert "the paused one wakes up and writes: refused\n" in story


def test_nobody_is_there() -> None:
    [port] = free_ports(1)
    done = run_example("kvstore.configuration", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert "connection refused" in done.stderr
    assert "make run" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_endpoint_that_cannot_be_read() -> None:
    done = run_example("kvstore.configuration", "nonsense")
    assert done.returncode == 1
    assert "write it as host:port" in done.stderr
    assert "Traceback" not in done.stderr
