"""What holds for every test: its figures are told, its logging is forgotten, its processes end.

A test says what it counted with ``record_property("counted", "one or more lines")``; it is printed
at the end of a run, green or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from chaos import guardian


def pytest_configure() -> None:
    """Whatever kills this run, no cluster of a test outlives it."""
    guardian.engage()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command run in this process may set up logs; the next test finds nothing of it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every figure that tests recorded."""
    counted = [
        (report.nodeid, str(text))
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == "counted"
    ]
    if counted:
        terminalreporter.section("what tests counted")
    for nodeid, text in counted:
        terminalreporter.write_line(nodeid)
        for line in text.splitlines():
            terminalreporter.write_line(f"  {line}")
