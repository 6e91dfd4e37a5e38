"""Watching kvstore beside a real etcd: ``python -m benchmarks.watches``.

Many watchers of one prefix, and one writer below it: each put is an event for every watcher. Three
nodes each, alternating rounds in one run, etcd's own Go client. A measurement counts only if every
watcher got every put that was acknowledged, once and in order.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import attrs
import click
from rich.console import Console

from benchmarks.counts import counts
from benchmarks.figures import median, ratio
from benchmarks.interrupts import end_on_signals
from benchmarks.load import KEYS, VALUE_BYTES
from benchmarks.machine import describe
from benchmarks.rounds import (
    START_TIMEOUT_S,
    BenchmarkFailed,
    Client,
    fresh_cluster,
    generate,
    in_turn,
    longest_gap,
)
from benchmarks.summary import ETCD
from benchmarks.tables import BESIDE, Sheet, number
from tests.clusters import Cluster, Program

WATCHERS: Final = 1000
STREAMS: Final = "10,1000"
DRAIN_TIMEOUT_S: Final = 60.0
"""How long the generator waits for watchers to be created, and for events that did not come yet."""


@attrs.frozen(slots=True)
class Watching:
    """What is asked: how many watchers on how many streams, and how the writer puts."""

    watchers: int
    streams: int
    writers: int
    warmup_s: float
    seconds: float
    members: int = 3

    def options(self, cluster: Cluster) -> dict[str, object]:
        """The generator's options."""
        return {
            "operation": "watch",
            "endpoints": ",".join(cluster.endpoints),
            "watchers": self.watchers,
            "streams": self.streams,
            "callers": self.writers,
            "warmup": self.warmup_s,
            "seconds": self.seconds,
            "keys": KEYS,
            "value": VALUE_BYTES,
        }


@attrs.frozen(slots=True)
class WatchMeasurement:
    """One measurement of one system in one round.

    ``puts`` were acknowledged in ``put_seconds``; their ``events`` had all arrived after
    ``event_seconds``, ``behind`` of them after the last put. Times of events are from before the
    put to the client's hands. ``load_1m`` is the machine's load average of the last minute,
    measured at the end; ``loop_gap_s`` as in ``benchmarks.rounds``.
    """

    round: int
    system: str
    streams: int
    puts: int
    put_seconds: float
    put_p50_ms: float
    put_p99_ms: float
    events: int
    event_seconds: float
    event_p50_ms: float
    event_p99_ms: float
    behind: int
    server_cpu_s: float
    client_cpu_s: float
    loop_gap_s: float | None
    load_1m: float

    @property
    def events_rate(self) -> float:
        """Events per second that reached watchers."""
        return self.events / self.event_seconds

    @property
    def puts_rate(self) -> float:
        """Acknowledged puts per second."""
        return self.puts / self.put_seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU time of all servers for each event, the puts' share included."""
        return self.server_cpu_s / self.events * 1e6 if self.events else 0.0


def measure(
    number: int, program: Program, client: Client, asked: Watching, directory: Path
) -> WatchMeasurement:
    """Start a cluster, let the watchers watch and the writer write, and end it.

    Raises:
        BenchmarkFailed: a server or the generator did not do its part, or an event did not come.
    """
    limit_s = START_TIMEOUT_S + asked.warmup_s + asked.seconds + 3 * DRAIN_TIMEOUT_S
    with fresh_cluster(program, asked.members, directory) as cluster:
        found, cpu_s = generate(client, asked.options(cluster), cluster, limit_s)
        gap_s = longest_gap(cluster)
    return WatchMeasurement(
        round=number,
        system=program.name,
        streams=asked.streams,
        puts=found["operations"],
        put_seconds=found["seconds"],
        put_p50_ms=found["p50_ms"],
        put_p99_ms=found["p99_ms"],
        events=found["events"],
        event_seconds=found["events_seconds"],
        event_p50_ms=found["event_p50_ms"],
        event_p99_ms=found["event_p99_ms"],
        behind=found["behind"],
        server_cpu_s=cpu_s,
        client_cpu_s=found["client_cpu_s"],
        loop_gap_s=gap_s,
        load_1m=os.getloadavg()[0],
    )


def run_rounds(
    programs: Sequence[Program],
    client: Client,
    cells: Sequence[Watching],
    rounds: int,
    directory: Path,
) -> Iterator[WatchMeasurement]:
    """Measure each cell on each program, and yield each figure as it comes."""
    for round_number in range(1, rounds + 1):
        for asked in cells:
            for program in in_turn(programs, round_number):
                yield measure(round_number, program, client, asked, directory)


@attrs.frozen(slots=True)
class Row:
    """One number of streams: medians of each system, and medians of the rounds' ratios."""

    streams: int
    figures: dict[str, dict[str, float | None]]
    ratios: dict[str, float | None]


FIGURES: Final[dict[str, Callable[[WatchMeasurement], float | None]]] = {
    "events_rate": lambda one: one.events_rate,
    "puts_rate": lambda one: one.puts_rate,
    "event_p50_ms": lambda one: one.event_p50_ms,
    "event_p99_ms": lambda one: one.event_p99_ms,
    "cpu_us": lambda one: one.cpu_us,
    "loop_gap_s": lambda one: one.loop_gap_s,
}


def summarize(measurements: Sequence[WatchMeasurement]) -> list[Row]:
    """Return a row for each number of streams, in the order they were measured."""
    rows = []
    for streams in dict.fromkeys(one.streams for one in measurements):
        systems: dict[str, dict[int, WatchMeasurement]] = {}
        for one in measurements:
            if one.streams == streams:
                systems.setdefault(one.system, {})[one.round] = one
        theirs = systems.get(ETCD, {})
        ours = next((found for name, found in systems.items() if name != ETCD), {})
        both = [(one, theirs[number]) for number, one in ours.items() if number in theirs]
        rows.append(
            Row(
                streams,
                figures={
                    system: {
                        name: median(map(figure, found.values()))
                        for name, figure in FIGURES.items()
                    }
                    for system, found in systems.items()
                },
                ratios={
                    name: median(ratio(figure(mine), figure(its)) for mine, its in both)
                    for name, figure in FIGURES.items()
                },
            )
        )
    return rows


def sheet_of(rows: Sequence[Row]) -> Sheet:
    """Return the table of kvstore beside etcd."""
    columns = (
        *(("events/s", "events_rate", ",.0f", True), ("puts/s", "puts_rate", ",.0f", True)),
        *(("p50 ms", "event_p50_ms", ".1f", False), ("p99 ms", "event_p99_ms", ".1f", False)),
        ("CPU µs", "cpu_us", ",.1f", True),
    )
    headings = ["streams", "system"]
    for heading, _, _, with_ratio in columns:
        headings += [heading, "ratio"] if with_ratio else [heading]
    table = []
    for row in rows:
        systems = sorted(row.figures, key=lambda name: name == ETCD)
        cells = [str(row.streams), BESIDE.join(systems)]
        for _, name, form, with_ratio in columns:
            cells.append(BESIDE.join(number(row.figures[each][name], form) for each in systems))
            if with_ratio:
                cells.append(number(row.ratios[name], ".2f"))
        table.append(tuple(cells))
    return Sheet(tuple(headings), tuple(table), texts=2)


def one_line(one: WatchMeasurement) -> str:
    """Return a measurement's figures for the progress line."""
    return (
        f"round {one.round} {one.streams:5} streams {one.system:8} "
        f"{one.events_rate:9,.0f} events/s {one.puts_rate:7,.0f} puts/s  "
        f"p50 {one.event_p50_ms:7.1f} ms  {one.cpu_us:5.1f} µs/event  load {one.load_1m:.1f}"
    )


def as_json(one: WatchMeasurement) -> dict[str, Any]:
    """Return a measurement with what follows from it."""
    rates = {"events_rate": one.events_rate, "puts_rate": one.puts_rate, "cpu_us": one.cpu_us}
    return attrs.asdict(one) | rates


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--engine", default="native", help="Of kvstore.")
@click.option("--watchers", type=click.IntRange(1, 100_000), default=WATCHERS)
@click.option("--streams", callback=counts, default=STREAMS, help="That watchers are spread over.")
@click.option("--writers", type=click.IntRange(min=1), default=1, help="Puts under way.")
@click.option("--rounds", type=click.IntRange(min=1), default=3)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=4.0, help="Of a measurement.")
@click.option("--warmup", type=click.FloatRange(min=0.1), default=1.0, help="Seconds before it.")
@click.option("--etcd/--no-etcd", default=True, help="Run etcd beside kvstore.")
@click.option("--json", "json_file", type=click.File("w", lazy=False), help="Write JSON here.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def main(
    engine: str,
    watchers: int,
    streams: tuple[int, ...],
    writers: int,
    rounds: int,
    seconds: float,
    warmup: float,
    etcd: bool,
    json_file: TextIO | None,
    markdown: bool,
) -> None:
    """Measure watchers of a three-node kvstore beside those of a three-node etcd."""
    end_on_signals()
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    client = Client.go()
    if client is None:
        raise click.ClickException("Go's client was not built: `make setup` builds it where Go is")
    programs = [Program.kvstore(engine)]
    if etcd and shutil.which("etcd"):
        programs.append(Program.etcd())
    elif etcd:
        progress.print("etcd is not on PATH (`make setup` tries to install it): skipped")
    cells = [Watching(watchers, each, writers, warmup, seconds) for each in streams]
    machine = describe(Path(tempfile.gettempdir()))
    for name, text in machine.items():
        progress.print(f"{name:>12}: {text}", markup=False)
    done: list[WatchMeasurement] = []
    try:
        with tempfile.TemporaryDirectory(prefix="raftyard-bench-") as directory:
            for one in run_rounds(programs, client, cells, rounds, Path(directory)):
                done.append(one)
                progress.print(one_line(one), markup=False)
    except BenchmarkFailed as error:
        raise click.ClickException(str(error)) from None
    rows = summarize(done)
    about = (
        f"{watchers} watchers of one prefix, {writers} writer(s), {VALUE_BYTES} bytes a value; "
        f"{rounds} round(s) of {seconds:g} s; medians over the rounds; times from before the put "
        "to the watcher; CPU of all servers for each event"
    )
    sheet = sheet_of(rows)
    sheet.show(about, markdown=markdown)
    if json_file is not None:
        report = {
            "machine": machine,
            "settings": {
                "engine": engine,
                "rounds": rounds,
                "cells": list(map(attrs.asdict, cells)),
            },
            "measurements": list(map(as_json, done)),
            "rows": list(map(attrs.asdict, rows)),
        }
        json.dump(report, json_file, indent=1)


if __name__ == "__main__":
    main()
