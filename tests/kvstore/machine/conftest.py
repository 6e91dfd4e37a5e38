"""A store's machine on a directory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kvstore.mvcc.driver import Driver


@pytest.fixture
def driver(tmp_path: Path) -> Any:
    driver = Driver(tmp_path / "machine")
    yield driver
    driver.machine.close()
