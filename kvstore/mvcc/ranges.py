"""Answering Range: which keys of an interval to return, at which revision, in which order.

The order of steps is etcd's: find the keys that live at the revision and count them; drop those
that the revision filters exclude; sort; cut at the limit. ``count`` ignores filters and limit.
What can be decided from the index alone reads no record.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from operator import attrgetter
from typing import Any, Final

from kvstore.errors import COMPACTED, FUTURE_REVISION, Status
from kvstore.mvcc.records import TOMBSTONE, Head
from kvstore.mvcc.store import Store, scan_end
from kvstore.pb.etcdserverpb_pb2 import RangeRequest, RangeResponse
from kvstore.pb.mvccpb_pb2 import KeyValue

Found = Head | KeyValue
"""A key that lives at the revision: its head where that is the newest, else what was read."""

_SORT_KEYS: Final[dict[int, Callable[[Any], Any]]] = {
    RangeRequest.VERSION: attrgetter("version"),
    RangeRequest.CREATE: attrgetter("create_revision"),
    RangeRequest.MOD: attrgetter("mod_revision"),
    RangeRequest.VALUE: attrgetter("value"),
}


def check_revision(store: Store, revision: int) -> Status | None:
    """Return why ``revision`` cannot be read now, or None. 0 and below mean the newest."""
    if revision <= 0:
        return None
    if revision > store.write_revision:
        return FUTURE_REVISION
    if revision < store.compact_revision:
        return COMPACTED
    return None


def range_now(store: Store, request: RangeRequest) -> RangeResponse | Status:
    """Answer a Range without pause; inside an open write it sees that write.

    Raises:
        Damaged: a record that belongs to the answer is damaged.
    """
    if not request.range_end and request.revision <= 0 and not _filtered(request):
        return _one_key(store, request)
    steps = range_steps(store, request)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            answer: RangeResponse | Status = done.value
            return answer


def _one_key(store: Store, request: RangeRequest) -> RangeResponse:
    response = RangeResponse()
    response.header.revision = store.write_revision
    key = request.key
    head = store.head(key)
    if head is None or head.flags & TOMBSTONE:
        return response
    response.count = 1
    if not request.count_only:
        _fill(store, response.kvs.add(), key, head, request.keys_only)
    return response


def range_steps(
    store: Store, request: RangeRequest
) -> Generator[None, None, RangeResponse | Status]:
    """Answer a Range in slices of a few milliseconds, at the revision that is newest now.

    Other commands may be applied at each ``yield``; the answer does not show them.

    Raises:
        Damaged: a record that belongs to the answer is damaged.
    """
    refusal = check_revision(store, request.revision)
    if refusal is not None:
        return refusal
    response = RangeResponse()
    response.header.revision = store.write_revision
    revision = request.revision if request.revision > 0 else store.write_revision
    with store.pin():
        yield from _collect(store, request, revision, response)
    return response


def _collect(
    store: Store, request: RangeRequest, revision: int, response: RangeResponse
) -> Generator[None, None, None]:
    """Fill in ``kvs``, ``count`` and ``more``."""
    limit = max(request.limit, 0)
    by_value = request.sort_target == RangeRequest.VALUE
    filtered = _filtered(request)
    rearranged = request.sort_order or request.sort_target or filtered
    # Without a sort order etcd sorts only the first limit + 1 keys, whatever the sort target.
    window = limit + 1 if limit and not request.sort_order and not filtered else 0
    count_only, keys_only = request.count_only, request.keys_only
    candidates: list[tuple[bytes, Found]] = []
    kvs = response.kvs
    count = 0
    for item in _heads(store, request):
        if item is None:
            yield
            continue
        key, head = item
        if head.main <= revision:
            if head.flags & TOMBSTONE:
                continue
            found: Found = head
        else:
            payload = store.visible(head, revision)
            if payload is None:
                continue
            found = KeyValue.FromString(payload)
        count += 1
        if count_only:
            continue
        if rearranged:
            if window and len(candidates) == window:
                continue
            if by_value and isinstance(found, Head):
                found = KeyValue.FromString(store.payload(key, found))
            candidates.append((key, found))
        elif not limit or len(kvs) < limit:
            _fill(store, kvs.add(), key, found, keys_only)
        else:
            response.more = True
    response.count = count
    if rearranged:
        chosen = _arrange(candidates, request)
        response.more = bool(limit) and len(chosen) > limit
        for number, (key, found) in enumerate(chosen[:limit] if limit else chosen):
            _fill(store, kvs.add(), key, found, keys_only)
            if number % FILL_PAUSE == FILL_PAUSE - 1:
                yield


FILL_PAUSE: Final = 256
"""Records read between two pauses after a sort."""


def _heads(store: Store, request: RangeRequest) -> Any:
    key, range_end = request.key, request.range_end
    if range_end:
        return store.heads(key, scan_end(range_end))
    head = store.head(key)
    return () if head is None else ((key, head),)


def _fill(store: Store, pair: KeyValue, key: bytes, found: Found, keys_only: bool) -> None:
    """Write one found key into the answer."""
    if isinstance(found, KeyValue):
        pair.CopyFrom(found)
        if keys_only:
            pair.ClearField("value")
    elif keys_only:
        pair.key = key
        pair.create_revision = found.create_revision
        pair.mod_revision = found.main
        pair.version = found.version
        pair.lease = found.lease
    else:
        pair.MergeFromString(store.payload(key, found))


def _filtered(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _arrange(
    candidates: list[tuple[bytes, Found]], request: RangeRequest
) -> list[tuple[bytes, Found]]:
    """Filter and sort. Equal sort values stay in key order."""
    min_mod, max_mod = request.min_mod_revision, request.max_mod_revision
    min_create, max_create = request.min_create_revision, request.max_create_revision
    kept = [
        item
        for item in candidates
        if (not min_mod or item[1].mod_revision >= min_mod)
        and (not max_mod or item[1].mod_revision <= max_mod)
        and (not min_create or item[1].create_revision >= min_create)
        and (not max_create or item[1].create_revision <= max_create)
    ]
    descending = request.sort_order == RangeRequest.DESCEND
    value_of = _SORT_KEYS.get(request.sort_target)
    if value_of is not None:
        kept.sort(key=lambda item: value_of(item[1]), reverse=descending)
    elif descending:
        kept.reverse()
    return kept
