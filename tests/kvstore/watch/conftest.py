"""Watch tests run on the small store in memory and on the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvstore.watch.fakes import FakeStore
from tests.kvstore.watch.real_store import RealStore


@pytest.fixture(params=["fake", "real"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeStore | RealStore]:
    """A store that has nothing in it, at revision 1."""
    if request.param == "fake":
        yield FakeStore()
        return
    real = RealStore(tmp_path / "store")
    yield real
    real.close()
