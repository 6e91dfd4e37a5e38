"""What tests counted, told at the end of a run, green or not.

A test says it with ``record_property("counted", "one or more lines")``.
"""

from __future__ import annotations

import pytest


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
