"""What a replayed bug is, and how it is judged.

A *script* plays one short, deterministic story on the product's own classes and asserts the promise
that the real system broke. Beside it stands the mutant that brings the same fault into our code.
Judging runs the script three ways: as the code is, it must pass; with the mutant it must fail, by
one of its own assertions or by one of the checks that stay on in production; and with the mutant
the *basic path* (elect, write, read, restart) must still work, since a mutant that breaks
everything would prove nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from consensus.raft.invariants import InvariantViolated
from tests.mutation import Mutant, applied
from tests.replayed.machines import Stage

NO_REASON = "an assertion without a reason"

Script = Callable[[Stage], None]
"""Plays a story."""


@attrs.frozen(slots=True)
class Source:
    """Where a real bug is on record."""

    title: str
    url: str


def issue(repository: str, *numbers: int) -> tuple[Source, ...]:
    """Return issues of a repository on GitHub."""
    project = repository.partition("/")[2]
    return tuple(
        Source(f"{project}#{number}", f"https://github.com/{repository}/issues/{number}")
        for number in numbers
    )


@attrs.frozen(slots=True)
class ReplayedBug:
    """One bug.

    Args:
        sources: where the real one is on record.
        promise: what it breaks.
        mutant: the same fault in our code.
        basic: the basic path of the part that the mutant is in.
        script: the story. Its docstring begins with what was broken.
    """

    sources: tuple[Source, ...]
    promise: str
    mutant: Mutant
    basic: Script
    script: Script

    @property
    def name(self) -> str:
        """The script's name."""
        return self.script.__name__

    @property
    def story(self) -> str:
        """What was broken, in one paragraph."""
        return " ".join((inspect.getdoc(self.script) or "").partition("\n\n")[0].split())


@attrs.frozen(slots=True)
class Verdict:
    """What came of judging one bug. Each is the first line of an error; empty: there was none.

    Args:
        head: of the script on the code as it is.
        basic: of the basic path with the mutant.
        mutant: of the script with the mutant: the promise that was seen broken.
        stray: with the mutant, the script fell over something that is neither an assertion of its
            own nor a check of the product: that shows nothing.
    """

    head: str
    basic: str
    mutant: str
    stray: str = ""

    @property
    def problems(self) -> Sequence[str]:
        """Why this proves nothing; empty where the bug is replayed as it should be."""
        found = []
        if self.head:
            found.append(f"red without the mutant: {self.head}")
        if self.basic:
            found.append(f"the mutant breaks the basic path too: {self.basic}")
        if self.stray:
            found.append(f"the script falls over: {self.stray}")
        elif not self.mutant:
            found.append("the mutant survives")
        return found


def judge(bug: ReplayedBug, directory: Path) -> Verdict:
    """Run a script with and without its mutant. ``directory`` must not be there yet, or empty."""
    head = _played(bug.script, directory / "head")
    with applied(bug.mutant):
        basic = _played(bug.basic, directory / "basic")
        seen = _played(bug.script, directory / "mutant")
    broken = isinstance(seen, AssertionError | InvariantViolated)
    return Verdict(
        head=_described(head),
        basic=_described(basic),
        mutant=_first_line(seen) if broken else "",
        stray="" if broken else _described(seen),
    )


def _played(script: Script, directory: Path) -> Exception | None:
    stage = Stage(directory)
    try:
        script(stage)
    except Exception as error:
        return error
    finally:
        stage.clear()
    return None


def _described(error: Exception | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception | None) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else NO_REASON


@contextmanager
def must(what: str) -> Iterator[None]:
    """Say of anything that is raised inside that ``what`` was promised."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what}; but {type(error).__name__}: {error}") from error


class Table:
    """Collects the bugs of one module, in its order."""

    def __init__(self, basic: Script) -> None:
        self.bugs: list[ReplayedBug] = []
        self._basic = basic

    def replays(
        self, *sources: Source, promise: str, mutant: Mutant, basic: Script | None = None
    ) -> Callable[[Script], Script]:
        """Note that the decorated script replays these bugs. See ``ReplayedBug``."""

        def note(script: Script) -> Script:
            self.bugs.append(ReplayedBug(sources, promise, mutant, basic or self._basic, script))
            return script

        return note
