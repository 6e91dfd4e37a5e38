"""Transactions: conditions on keys, what to do if all of them hold, and what to do if not.

    >>> from kvstore.client import Get, Put, Txn, value, version
    >>> await client.txn(
    ...     when=[version("/config/owner") == 0],
    ...     then=[Put("/config/owner", "me")],
    ...     otherwise=[Get("/config/owner")],
    ... )

A key that does not exist compares as version, revision and lease 0; its value equals nothing. A
``Txn`` may stand among the operations of another. All writes of a transaction share one revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kvstore.client.records import (
    DeleteResult,
    Header,
    PutResult,
    RangeResult,
    Text,
    key_range,
    to_bytes,
)
from kvstore.pb import etcdserverpb_pb2 as pb


@attrs.frozen(slots=True)
class Comparison:
    """One condition of a transaction. Made by comparing a ``Subject``."""

    message: pb.Compare


class Subject:
    """Something of a key, or of every key in a range, that a condition can be about.

    Compare it with ``==``, ``!=``, ``<`` or ``>`` (etcd has no others).
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, target: pb.Compare.CompareTarget, field: str, key: bytes, end: bytes):
        self._target = target
        self._field = field
        self._key = key
        self._range_end = end

    def _compare(self, result: pb.Compare.CompareResult, other: object) -> Comparison:
        message = pb.Compare(
            result=result, target=self._target, key=self._key, range_end=self._range_end
        )
        operand: Any = other
        if self._field == "value":
            if not isinstance(other, str | bytes):
                raise TypeError(f"a value compares with text or bytes, not {other!r}")
            operand = to_bytes(other)
        elif not isinstance(other, int):
            raise TypeError(f"{self._field} compares with a whole number, not {other!r}")
        setattr(message, self._field, operand)
        return Comparison(message)

    def __eq__(self, other: object) -> Comparison:  # type: ignore[override]
        return self._compare(pb.Compare.EQUAL, other)

    def __ne__(self, other: object) -> Comparison:  # type: ignore[override]
        return self._compare(pb.Compare.NOT_EQUAL, other)

    def __gt__(self, other: object) -> Comparison:
        return self._compare(pb.Compare.GREATER, other)

    def __lt__(self, other: object) -> Comparison:
        return self._compare(pb.Compare.LESS, other)


def version(key: Text, range_end: Text | None = None, *, prefix: bool = False) -> Subject:
    """The number of changes of ``key`` since its creation; 0 if it does not exist."""
    return Subject(pb.Compare.VERSION, "version", *key_range(key, range_end, prefix=prefix))


def create_revision(key: Text, range_end: Text | None = None, *, prefix: bool = False) -> Subject:
    """The revision at which ``key`` was created; 0 if it does not exist."""
    return Subject(pb.Compare.CREATE, "create_revision", *key_range(key, range_end, prefix=prefix))


def mod_revision(key: Text, range_end: Text | None = None, *, prefix: bool = False) -> Subject:
    """The revision of the last change of ``key``; 0 if it does not exist."""
    return Subject(pb.Compare.MOD, "mod_revision", *key_range(key, range_end, prefix=prefix))


def value(key: Text, range_end: Text | None = None, *, prefix: bool = False) -> Subject:
    """The value of ``key``; no comparison holds if it does not exist."""
    return Subject(pb.Compare.VALUE, "value", *key_range(key, range_end, prefix=prefix))


def lease(key: Text, range_end: Text | None = None, *, prefix: bool = False) -> Subject:
    """The lease that ``key`` is attached to; 0 without one."""
    return Subject(pb.Compare.LEASE, "lease", *key_range(key, range_end, prefix=prefix))


@attrs.frozen(slots=True)
class Put:
    """Put ``value`` at ``key``."""

    key: Text
    value: Text = b""
    lease: int = attrs.field(default=0, kw_only=True)
    prev_kv: bool = attrs.field(default=False, kw_only=True)

    def message(self) -> pb.RequestOp:
        """Return the operation as a request carries it."""
        return pb.RequestOp(
            request_put=pb.PutRequest(
                key=to_bytes(self.key),
                value=to_bytes(self.value),
                lease=self.lease,
                prev_kv=self.prev_kv,
            )
        )


@attrs.frozen(slots=True)
class Get:
    """Read ``key``, or a range."""

    key: Text
    range_end: Text | None = None
    prefix: bool = attrs.field(default=False, kw_only=True)
    limit: int = attrs.field(default=0, kw_only=True)

    def message(self) -> pb.RequestOp:
        """Return the operation as a request carries it."""
        key, end = key_range(self.key, self.range_end, prefix=self.prefix)
        return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end, limit=self.limit))


@attrs.frozen(slots=True)
class Delete:
    """Delete ``key``, or a range."""

    key: Text
    range_end: Text | None = None
    prefix: bool = attrs.field(default=False, kw_only=True)
    prev_kv: bool = attrs.field(default=False, kw_only=True)

    def message(self) -> pb.RequestOp:
        """Return the operation as a request carries it."""
        key, end = key_range(self.key, self.range_end, prefix=self.prefix)
        return pb.RequestOp(
            request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=self.prev_kv)
        )


@attrs.frozen(slots=True)
class Txn:
    """If all of ``when`` hold, do ``then``, else ``otherwise``; in one step for everyone."""

    when: Sequence[Comparison] = ()
    then: Sequence[Op] = ()
    otherwise: Sequence[Op] = ()

    def request(self) -> pb.TxnRequest:
        """Return the transaction as a request."""
        return pb.TxnRequest(
            compare=[condition.message for condition in self.when],
            success=[op.message() for op in self.then],
            failure=[op.message() for op in self.otherwise],
        )

    def message(self) -> pb.RequestOp:
        """Return the transaction as an operation of another one."""
        return pb.RequestOp(request_txn=self.request())

    def writes(self) -> bool:
        """Tell whether any branch may change something."""
        return any(
            op.writes() if isinstance(op, Txn) else not isinstance(op, Get)
            for op in (*self.then, *self.otherwise)
        )


Op = Put | Get | Delete | Txn
"""What a transaction can do."""


@attrs.frozen(slots=True)
class TxnResult:
    """``succeeded`` tells which branch ran; ``responses`` are its results, in order."""

    header: Header
    succeeded: bool
    responses: tuple[PutResult | RangeResult | DeleteResult | TxnResult, ...]

    @classmethod
    def of(cls, message: pb.TxnResponse) -> TxnResult:
        """Read the result from its message."""
        responses = tuple(_response(each) for each in message.responses)
        return cls(Header.of(message.header), message.succeeded, responses)


def _response(message: pb.ResponseOp) -> PutResult | RangeResult | DeleteResult | TxnResult:
    match message.WhichOneof("response"):
        case "response_put":
            return PutResult.of(message.response_put)
        case "response_range":
            return RangeResult.of(message.response_range)
        case "response_delete_range":
            return DeleteResult.of(message.response_delete_range)
        case _:
            return TxnResult.of(message.response_txn)
