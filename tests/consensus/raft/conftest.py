"""Settings of the core's tests.

``pytest tests/consensus/raft --rewrite`` writes the golden traces anew. Commit only what you
understand line by line.
"""

from __future__ import annotations

import hypothesis
import pytest

hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that regenerates golden traces."""
    parser.addoption(
        "--rewrite", action="store_true", help="write the golden interaction traces anew"
    )
