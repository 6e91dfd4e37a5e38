"""The arithmetic behind the tables."""

from __future__ import annotations

import os

import pytest

from benchmarks.figures import LoadResult, cpu_seconds, median, quantile, ratio
from benchmarks.rounds import Measurement, in_turn
from benchmarks.summary import Row, summarize
from benchmarks.tables import side_by_side
from benchmarks.watches import WatchMeasurement, sheet_of
from benchmarks.watches import summarize as summarize_watches
from tests.clusters import Program


def test_quantile_is_the_value_that_so_many_lie_below() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert quantile(ordered, 0.5) == 51.0
    assert quantile(ordered, 0.99) == 100.0
    assert quantile(ordered, 1) == 100.0
    assert quantile([], 0.5) == 0.0


def test_median_and_ratio_pass_over_what_is_missing() -> None:
    assert median([3.0, None, 1.0]) == 2.0
    assert median([None]) is None
    assert ratio(1.0, 4.0) == 0.25
    assert ratio(1.0, 0.0) is None
    assert ratio(None, 2.0) is None


def test_cpu_seconds_grow_with_work() -> None:
    before = cpu_seconds([os.getpid()])
    while cpu_seconds([os.getpid()]) < before + 0.02:  # ends when two clock ticks were used up
        sum(range(10_000))
    assert cpu_seconds([os.getpid(), os.getpid()]) == pytest.approx(
        2 * cpu_seconds([os.getpid()]), abs=0.1
    )


def test_the_order_turns_around_from_round_to_round() -> None:
    first, second = Program("kvstore", ()), Program("etcd", ())
    orders = [in_turn([first, second], number) for number in (1, 2, 3)]
    assert orders == [[first, second], [second, first], [first, second]]


def measured(number: int, system: str, rate: float, cpu_s: float, errors: int = 0) -> Measurement:
    """A second of load."""
    load = LoadResult(int(rate), errors, 1.0, 1.0, 2.0, 3.0, 0.1, "boom" if errors else "")
    gap = 0.01 * number if system == "kvstore" else None
    return Measurement(number, system, "go", "put", 64, load, cpu_s, gap)


def summary() -> Row:
    """Three rounds on a machine that slows down: each pair of neighbours says one half."""
    (row,) = summarize(
        [
            measured(1, "kvstore", 500, 1.0),
            measured(1, "etcd", 1000, 0.5),
            measured(2, "etcd", 600, 0.3),
            measured(2, "kvstore", 300, 0.6, errors=2),
            measured(3, "kvstore", 100, 0.2),
            measured(3, "etcd", 200, 0.1),
        ]
    )
    return row


def test_ratios_are_taken_within_rounds() -> None:
    row = summary()
    assert (row.ours.rate, row.etcd and row.etcd.rate) == (300, 600)
    assert row.rate_ratio == 0.5
    assert row.cpu_ratio == pytest.approx(4.0)
    assert row.ours.cpu_us == pytest.approx(2000)
    assert (row.loop_gap_ms, row.loop_gap_worst_ms) == (pytest.approx(20), pytest.approx(30))


def test_a_round_with_errors_is_marked_and_told() -> None:
    row = summary()
    assert row.bad_rounds == (2,)
    sheet = side_by_side([row])
    assert sheet.rows[0][2] == "64 !"
    assert sheet.notes == (
        "! go put 64 on kvstore: 2 of 902 requests failed (round 2), the first with: boom",
    )
    assert "| go | put | 64 ! | kvstore / etcd | 300 / 600 | 0.50 |" in sheet.markdown()


def test_without_etcd_there_are_figures_and_no_ratios() -> None:
    (row,) = summarize([measured(1, "kvstore", 500, 1.0)])
    assert row.etcd is None
    assert row.rate_ratio is None
    assert side_by_side([row]).rows[0][3:6] == ("kvstore", "500", "–")


def watched(number: int, system: str, events: int, cpu_s: float) -> WatchMeasurement:
    """Two seconds with a put for each thousand events, all of which arrived one second later."""
    return WatchMeasurement(
        round=number,
        system=system,
        streams=10,
        puts=events // 1000,
        put_seconds=2.0,
        put_p50_ms=1.0,
        put_p99_ms=2.0,
        events=events,
        event_seconds=3.0,
        event_p50_ms=5.0,
        event_p99_ms=9.0,
        behind=events // 3,
        server_cpu_s=cpu_s,
        client_cpu_s=1.0,
        loop_gap_s=0.02 if system == "kvstore" else None,
        load_1m=1.0,
    )


def test_watches_are_compared_within_their_round() -> None:
    (row,) = summarize_watches(
        [
            watched(1, "kvstore", 300_000, 3.0),
            watched(1, "etcd", 600_000, 3.0),
            watched(2, "etcd", 60_000, 3.0),
            watched(2, "kvstore", 30_000, 3.0),
        ]
    )
    assert row.figures["kvstore"]["events_rate"] == pytest.approx(55_000)
    assert row.figures["kvstore"]["puts_rate"] == pytest.approx(82.5)
    assert row.ratios["events_rate"] == pytest.approx(0.5)
    assert row.ratios["cpu_us"] == pytest.approx(2.0)
    assert row.ratios["loop_gap_s"] is None
    markdown = sheet_of([row]).markdown()
    assert "| 10 | kvstore / etcd | 55,000 / 110,000 | 0.50 |" in markdown
