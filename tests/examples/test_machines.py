"""The five uses on replicated machines, over every engine."""

from __future__ import annotations

import pytest

from tests.examples.stories import run_example, tell


@pytest.fixture(params=["local", "pysyncobj", "native"])
def engine(request: pytest.FixtureRequest) -> str:
    """How the three members replicate."""
    return f"--engine={request.param}"


def test_configuration(engine: str) -> None:
    story = tell("machines.configuration", engine)
    assert "alice: done" in story
    assert "bob: refused, someone else changed it" in story
    for member in ("n2", "n3"):
        end = "{'stop': True, 'title': 'by alice'}"
        assert f"program on {member}: version 5: {end}" in story


def test_service_discovery(engine: str) -> None:
    story = tell("machines.service_discovery", engine)
    before, _, after = story.partition("web-1 crashes\n")
    assert "client: web-1 at 10.0.1.10:80, web-2 at 10.0.1.11:80\n" in before
    assert "client: web-2 at 10.0.1.11:80\n" in after
    assert story.endswith("client: nobody is there\n")


def test_leader_election(engine: str) -> None:
    story = tell("machines.leader_election", engine)
    assert "leads in term 1\n" in story
    assert "leads in term 2\n" in story
    assert "term 2: written\n" in story
    assert "term 1: refused, an older term\n" in story
    assert "hears: term 1 does not hold election 'billing'" in story


def test_scheduling(engine: str) -> None:
    story = tell("machines.scheduling", engine)
    assert "lost worker: claims fetch, resize and falls silent" in story
    assert "lost worker: wakes up and hears: attempt 1 of task 'fetch'" in story
    assert story.endswith(
        "fetch: done, attempt 2: 0\n"
        "resize: done, attempt 2: 1\n"
        "upload: done, attempt 1: 4\n"
        "index: done, attempt 1: 9\n"
    )


def test_distributed_lock(engine: str) -> None:
    story = tell("machines.distributed_lock", engine)
    assert "the number is 9 after 9 turns\n" in story
    assert "paused: wakes up and writes: refused by the store\n" in story
    assert story.endswith("the number is 10\n")


def test_an_engine_that_there_is_not() -> None:
    done = run_example("machines.scheduling", "--engine=paxos")
    assert done.returncode == 2
    assert "invalid choice: 'paxos'" in done.stderr
