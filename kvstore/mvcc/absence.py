"""Believing that something is not stored, on pages that have no checksums.

What LMDB finds is checked by the checksum of the value. But a bit that flipped in a page (in a
branch's separator, in a leaf's list of places, in a name) can make a lookup end at the wrong place,
and then something seems absent that is there. Such a lookup ends between two names that do not
enclose the one that was looked for, or beside a name that does not match its own checksum. So what
is not found is believed only after a look at its two neighbours, and revisions, which have no gaps,
are believed only without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import lmdb

from kvstore.mvcc.records import REVISION, Damaged, unseal

REVISION_WITHOUT_RECORD: Final = 1
"""That of an empty store."""

OUT_OF_ORDER: Final = "what is stored around it is out of order"


def prove_absent(
    txn: lmdb.Transaction[bytes],
    table: lmdb._Database,
    label: str,
    name: bytes,
    sealed_with: Callable[[bytes], bytes | None] = lambda name: name,
) -> None:
    """Look at the neighbours of a name that was not found in a table.

    Args:
        label: what the table is called in errors.
        sealed_with: tells with what the value under a name of the table is sealed, which is mostly
            that name itself; None where it cannot be known.

    Raises:
        Damaged: the neighbours do not enclose the name, or are damaged themselves.
    """
    with txn.cursor(db=table) as cursor:
        if cursor.set_range(name):
            following, value = cursor.item()
            if following <= name:
                raise Damaged(label, name, OUT_OF_ORDER)
            _check(label, sealed_with(following), value)
            found = cursor.prev()
        else:
            found = cursor.last()
        if found:
            before, value = cursor.item()
            if before >= name:
                raise Damaged(label, name, OUT_OF_ORDER)
            _check(label, sealed_with(before), value)


def _check(label: str, name: bytes | None, value: bytes) -> None:
    if name is not None:
        unseal(label, name, value)


def prove_beginning(
    txn: lmdb.Transaction[bytes], table: lmdb._Database, label: str, first: bytes
) -> None:
    """Make sure that a walk from ``first`` on leaves nothing out at its beginning.

    Raises:
        Damaged: what stands before its first name is not less than ``first``.
    """
    with txn.cursor(db=table) as cursor:
        found = cursor.prev() if cursor.set_range(first) else cursor.last()
        if found and cursor.key() >= first:
            raise Damaged(label, first, OUT_OF_ORDER)


def check_follows(behind: tuple[int, int], place: tuple[int, int], compact_revision: int) -> None:
    """Make sure that no record is missing between two that were met in order.

    Above the compact revision every revision has a record, and the places inside it are numbered
    from 0.

    Args:
        behind: (main, sub) right behind the record before; (revision, 1) to begin after a revision.
        place: (main, sub) of the record that was met next.

    Raises:
        Damaged: one is missing, or they are out of order.
    """
    main, _ = place
    compact_revision = max(compact_revision, REVISION_WITHOUT_RECORD)
    if main <= compact_revision or place == behind or place == (behind[0] + 1, 0):
        return
    if behind[0] <= compact_revision and place == (compact_revision + 1, 0):
        return
    raise Damaged("revision", REVISION.pack(*place), "the record before it is missing")


def check_end(last: int, revision: int, compact_revision: int) -> None:
    """Make sure that no record is missing at the end of a walk that should reach ``revision``.

    Args:
        last: the last main revision that was met; anything less than ``revision`` if none.

    Raises:
        Damaged: one is missing.
    """
    if last < revision and revision > max(compact_revision, REVISION_WITHOUT_RECORD):
        raise Damaged("revision", REVISION.pack(revision, 0), "missing at the end")
