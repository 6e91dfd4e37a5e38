"""Rounds of damage to one member of three: a bit flips or the disk fails, in each kind of its data.

    PYTHONPATH=. nice python -m tests.kvstore.damage_rounds --rounds 5 --seed 1 --json out.json

Each cell of the table (see ``tests/kvstore/damage/cells.py``) is a deed under load. The victim
must say that it is damaged; whatever it answers meanwhile must be right; it must come back by
itself, repaired from the others: healthy, with everything acknowledged, and with the HashKV of all.
A member that ends is started again, as a service manager does. The exit status is 1 where any of
that fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
from rich.console import Console
from rich.table import Table

from chaos.lossyfs.disk import why_not
from tests.kvstore.damage.cells import CELLS, REMARKS, Cell, strike
from tests.kvstore.damage.world import PATIENCE_S, Reading, World, signals_in, world
from tests.kvstore.ledger import load, more_acknowledged
from tests.waiting import wait_until

SCRUBBED_WITHIN_S: Final = 60.0
BEFORE_PUTS: Final = 30
AFTER_PUTS: Final = 30
WRITE_PAUSE_S: Final = 0.02
WORD_SHOWN: Final = 90


@attrs.define
class Outcome:
    """What became of one cell. Times in seconds, from the damage on."""

    cell: str
    round: int
    deed: str = ""
    word: str = ""
    detected_s: float = -1.0
    ends: str = ""
    repaired_s: float = -1.0
    answers: int = 0
    problems: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        return (
            f"round {self.round}, {self.cell}: detected after {self.detected_s:.1f} s, well "
            f"after {self.repaired_s:.1f} s; {len(self.problems)} problems"
        )


async def one_cell(cell: Cell, number: int, here: World) -> Outcome:
    """Do one cell, and wait until everything is well again."""
    outcome = Outcome(str(cell), number)
    reading = Reading(here.ledger, here.victim.client, here.rng)
    try:
        writers = load(here.cluster, here.ledger, f"{number}/{cell}", WRITE_PAUSE_S)
        async with writers, reading.running():
            await more_acknowledged(here.ledger, BEFORE_PUTS)
            outcome.deed = await strike(cell, here)
            await wait_until(lambda: bool(here.word()), PATIENCE_S, "the victim tells of damage")
            outcome.detected_s = time.monotonic() - here.marked_at
            outcome.word = here.word()
            here.ledger.go.set()
            await here.well()
            outcome.repaired_s = time.monotonic() - here.marked_at
            await more_acknowledged(here.ledger, AFTER_PUTS)
        await asyncio.to_thread(here.cluster.wait_ready, PATIENCE_S)
        outcome.problems += await here.wrong()
    except (AssertionError, RuntimeError, TimeoutError) as error:
        outcome.problems.append(f"{error}"[:1000])
    finally:
        here.ledger.go.set()
        here.disk.heal()
    outcome.ends = signals_in(here.ends)
    outcome.answers = reading.answers
    outcome.problems += reading.wrong[:5]
    if outcome.detected_s > SCRUBBED_WITHIN_S:
        outcome.problems.append(f"detected after {outcome.detected_s:.0f} s only")
    return outcome


async def rounds_of_damage(
    directory: Path,
    rounds: int,
    *,
    seed: int = 0,
    cells: Sequence[Cell] = CELLS,
    told: Callable[[Outcome], None] = lambda outcome: None,
    **of_world: int,
) -> list[Outcome]:
    """Run the rounds, each on a cluster of its own.

    Args:
        directory: for data and logs.
        rounds: how many.
        seed: of places and bits.
        cells: which to do in each round.
        told: is told each outcome at once.
        of_world: see ``world``.
    """
    outcomes: list[Outcome] = []
    for number in range(1, rounds + 1):
        inside = directory / f"round{number}"
        inside.mkdir()
        async with world(inside, seed + number, **of_world) as here:
            for cell in cells:
                outcome = await one_cell(cell, number, here)
                outcomes.append(outcome)
                told(outcome)
                if outcome.problems:
                    break  # what comes after would stand on it
    return outcomes


def table_of(outcomes: Sequence[Outcome], cells: Sequence[Cell] = CELLS) -> Table:
    """Show each cell: rounds, times, what was said, how the process ended."""
    table = Table(title="One member of three, damaged", show_lines=True)
    for column in ("cell", "rounds", "detected", "well again", "process", "it says", "problems"):
        table.add_column(column)
    for cell in cells:
        mine = [each for each in outcomes if each.cell == str(cell)]
        if not mine:
            continue
        table.add_row(
            str(cell) + (f"\n[dim]{REMARKS[cell]}[/]" if cell in REMARKS else ""),
            str(len(mine)),
            _spread([each.detected_s for each in mine]),
            _spread([each.repaired_s for each in mine]),
            "\n".join(sorted({each.ends or "goes on" for each in mine})),
            max(mine, key=lambda each: each.detected_s).word[:160],
            str(sum(len(each.problems) for each in mine) or ""),
        )
    return table


def markdown_of(outcomes: Sequence[Outcome]) -> str:
    """Return the same as a table of Markdown, for docs/DAMAGE.md."""
    lines = [
        "| what | how | when | done | detected after | well after | its process | it says |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        mine = [each for each in outcomes if each.cell == str(cell) and not each.problems]
        if not mine:
            continue
        cells = (
            *(
                cell.target,
                cell.kind,
                cell.when + (f" ({REMARKS[cell]})" if cell in REMARKS else ""),
            ),
            f"{len(mine)} times",
            _spread([each.detected_s for each in mine]),
            _spread([each.repaired_s for each in mine]),
            "; ".join(sorted({each.ends or "goes on" for each in mine})),
            "; ".join(sorted({_shortly(each.word) for each in mine})),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shortly(word: str) -> str:
    """The beginning of a message, without what differs from run to run."""
    without_paths = re.sub(r"/\S*/", "", word)
    without_numbers = re.sub(r"\b(\d{6,}|[0-9a-f]{16,})\b", "…", without_paths)
    return without_numbers.replace("|", "/")[:WORD_SHOWN].strip()


def _spread(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.1f} to {max(seconds):.1f} s"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", default="", help="only those whose name contains this")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--json", type=Path, help="write every outcome here")
    options = parser.parse_args()
    if why_not():
        parser.exit(2, f"damage_rounds: {why_not()}\n")
    cells = [cell for cell in CELLS if options.cells in str(cell)]
    if not cells:
        parser.exit(2, f"damage_rounds: no cell is called {options.cells!r}\n")
    outcomes: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(outcome, flush=True)
        if options.json:
            options.json.write_text(json.dumps([attrs.asdict(each) for each in outcomes], indent=1))

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="damage-rounds-") as directory:
        asyncio.run(
            rounds_of_damage(
                Path(directory), options.rounds, seed=options.seed, cells=cells, told=told
            )
        )
    if options.markdown:
        options.markdown.write_text(markdown_of(outcomes))
    Console(width=160).print(table_of(outcomes, cells))
    problems = [f"{each.cell}: {text}" for each in outcomes for text in each.problems]
    for text in problems:
        print(text)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
