"""Replay a differential run: ``python -m tests.differential --seed 7 --operations 1234``."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console

from tests.clusters import Cluster, Program
from tests.differential.driver import Comparison, Report
from tests.differential.generator import Generator
from tests.differential.tables import coverage_table


async def compare(
    oracle: list[str],
    subject: list[str],
    generator: Generator,
    operations: int,
    trace: TextIO | None = None,
) -> Report:
    """Run one comparison and close it."""
    comparison = Comparison(oracle, subject, generator, trace)
    try:
        return await comparison.run(operations)
    finally:
        await comparison.close()


@click.command()
@click.option("--seed", default=1, show_default=True, help="Which sequence.")
@click.option("--operations", default=20_000, show_default=True, help="How much of it.")
@click.option(
    "--subject",
    type=click.Choice(["kvstore", "etcd"]),
    default="kvstore",
    show_default=True,
    help="What is compared with one real etcd; etcd itself is the control.",
)
@click.option("--directory", type=click.Path(path_type=Path), help="Keep data and logs here.")
@click.option("--trace", type=click.File("w"), help="Write every operation and both answers here.")
def main(
    seed: int, operations: int, subject: str, directory: Path | None, trace: TextIO | None
) -> None:
    """Send one seeded sequence to a real etcd and to a three-node cluster; compare every answer."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        base = directory or Path(temporary)
        program = Program.kvstore() if subject == "kvstore" else Program.etcd()
        with (
            Cluster(Program.etcd(), base / "oracle", size=1) as oracle,
            Cluster(program, base / "subject") as cluster,
        ):
            started = time.monotonic()
            generator = Generator(seed, failing_txn_reads=subject != "etcd")
            report = asyncio.run(
                compare(oracle.endpoints, cluster.endpoints, generator, operations, trace)
            )
            took = time.monotonic() - started
    console.print(coverage_table(report))
    console.print(f"{report.operations} operations in {took:.1f} s", highlight=False)
    for name, count in sorted(report.explained.items()):
        console.print(f"expected difference {name}: {count}", highlight=False, markup=False)
    if report.mismatches:
        console.print(report.text(), highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
