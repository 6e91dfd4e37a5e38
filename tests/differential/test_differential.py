"""kvstore against etcd: one random sequence, every answer equal.

``python -m tests.differential --seed N`` runs any other; ``--subject etcd`` is the control.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from google.protobuf.message import Message
from rich.console import Console

from kvstore import errors
from tests.clusters import Cluster, Program
from tests.differential.coverage import HITS_MIN, NOT_REACHED, REQUIRED_ERRORS, required_options
from tests.differential.driver import MISMATCHES_MAX, Comparison, Report
from tests.differential.expected_differences import ANSWERS
from tests.differential.generator import Generator
from tests.differential.operations import Answer, Operation
from tests.differential.tables import coverage_table
from tests.differential.test_comparer_sees import altered
from tests.interop import require_program

SEED = 20260727
OPERATIONS = 20_000
SAMPLE_OPERATIONS = 2_000
CONTROL_OPERATIONS = 1_500
LIES = MISMATCHES_MAX - 1

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("differential")]


@pytest.fixture
def oracle(tmp_path: Path) -> Iterator[list[str]]:
    """One real etcd."""
    require_program("etcd")
    with Cluster(Program.etcd(), tmp_path / "oracle", size=1) as cluster:
        yield cluster.endpoints


async def compare(
    oracle: list[str], subject: list[str], generator: Generator, operations: int
) -> Report:
    comparison = Comparison(oracle, subject, generator)
    try:
        return await comparison.run(operations)
    finally:
        await comparison.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kvstore_answers_as_etcd_does(oracle: list[str], tmp_path: Path) -> None:
    with Cluster(Program.kvstore(), tmp_path / "kvstore") as subject:
        report = await compare(oracle, subject.endpoints, Generator(SEED), OPERATIONS)
    Console(width=100).print(coverage_table(report))
    assert not report.mismatches, f"\n{report.text()}"
    assert report.operations >= OPERATIONS
    hits = report.coverage
    rare = {name: hits.options[name] for name in required_options()}
    rare |= {name: hits.errors[name] for name in REQUIRED_ERRORS}
    rare |= {"watchers canceled by compaction": report.compacted, "fragments": report.fragments}
    rare |= {"invalid sort option": report.explained["invalid_sort_option"]}
    missed = {name: count for name, count in rare.items() if count < HITS_MIN}
    assert not missed, f"met fewer than {HITS_MIN} times: {missed}"


async def test_on_pysyncobj(oracle: list[str], tmp_path: Path) -> None:
    with Cluster(Program.kvstore("pysyncobj"), tmp_path / "kvstore") as subject:
        report = await compare(oracle, subject.endpoints, Generator(SEED), SAMPLE_OPERATIONS)
    assert not report.mismatches, f"\n{report.text()}"
    assert report.operations >= SAMPLE_OPERATIONS


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_etcd_agrees_with_etcd(oracle: list[str], tmp_path: Path) -> None:
    """The control: with etcd on both sides there is nothing to report, and nothing to explain."""
    with Cluster(Program.etcd(), tmp_path / "control") as subject:
        generator = Generator(SEED, failing_txn_reads=False)
        report = await compare(oracle, subject.endpoints, generator, CONTROL_OPERATIONS)
    assert not report.mismatches, f"\n{report.text()}"
    assert not report.explained
    assert report.events > 0


async def test_a_lying_system_is_caught(oracle: list[str], tmp_path: Path) -> None:
    """The same sequence, but now and then one field of one answer is changed on its way."""
    rng = random.Random(SEED)
    lies: dict[int, str] = {}

    def lie(operation: Operation, answer: Answer) -> Answer:
        if len(lies) == LIES or answer.message is None or rng.random() > 0.1:
            return answer
        copy = type(answer.message).FromString(answer.message.SerializeToString())
        choice = rng.randrange(sum(1 for _ in altered(copy)))
        for number, path in enumerate(altered(copy)):
            if number == choice and copy != answer.message:
                lies[operation.number] = f"{operation.method}: {path}"
                changed: Message = type(copy).FromString(copy.SerializeToString())
                return attrs.evolve(answer, message=changed)
        return answer

    with Cluster(Program.etcd(), tmp_path / "liar", size=1) as subject:
        comparison = Comparison(oracle, subject.endpoints, Generator(SEED))
        honest = comparison.subject.run

        async def run(operation: Operation) -> Answer:
            return lie(operation, await honest(operation))

        comparison.subject.run = run  # type: ignore[method-assign]
        report = await comparison.run(300)
        await comparison.close()
    caught = {int(m.what[1:].split()[0]) for m in report.mismatches if m.what.startswith("#")}
    assert len(lies) == LIES
    missed = {number: lies[number] for number in sorted(lies.keys() - caught)}
    assert not missed, f"not seen: {missed}"
    assert caught == lies.keys()


def test_every_error_is_required_or_excused() -> None:
    texts = {
        status.message for status in vars(errors).values() if isinstance(status, errors.Status)
    }
    required = {name.split(": ", 1)[1] for name in REQUIRED_ERRORS}
    assert texts - required == NOT_REACHED.keys()
    assert all(NOT_REACHED.values())


def test_every_expected_difference_says_what_it_follows() -> None:
    names = [difference.name for difference in ANSWERS]
    assert len(set(names)) == len(names)
    assert all(difference.follows for difference in ANSWERS)
