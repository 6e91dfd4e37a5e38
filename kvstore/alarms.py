"""Alarms: what stops the cluster from taking writes, or from answering at all, until disarmed."""

from __future__ import annotations

import struct
from typing import Final

from kvstore.mvcc.records import seal, unseal
from kvstore.mvcc.store import Store
from kvstore.pb.etcdserverpb_pb2 import CORRUPT, NONE, NOSPACE, AlarmMember, AlarmRequest

_NAME: Final = struct.Struct(">iQ")


class Alarms:
    """The alarms of one store: pairs of an alarm's type and the member that raised it.

    Args:
        store: where they are stored.

    Raises:
        Damaged: a stored alarm is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._active: set[tuple[int, int]] = set()
        self.reload()

    def reload(self) -> None:
        """Read all alarms anew, after the store went back or was replaced.

        Raises:
            Damaged: a stored alarm is.
        """
        backend = self._store.backend
        self._active.clear()
        with backend.txn.cursor(db=backend.alarms) as cursor:
            for name, sealed in cursor:
                unseal("alarm", name, sealed)
                kind, member_id = _NAME.unpack(name)
                self._active.add((kind, member_id))
        self._summarize()

    def _summarize(self) -> None:
        kinds = {kind for kind, _ in self._active}
        self.no_space = NOSPACE in kinds
        """Whether a NOSPACE alarm is raised: nothing that costs space is applied."""
        self.corrupt = CORRUPT in kinds
        """Whether a CORRUPT alarm is raised: nothing is answered."""

    def get(self, kind: int = NONE) -> list[AlarmMember]:
        """Return the raised alarms of one type, or of all with NONE, by type and member."""
        return [
            _member(active, member_id)
            for active, member_id in sorted(self._active)
            if kind in (NONE, active)
        ]

    def change(self, request: AlarmRequest) -> list[AlarmMember]:
        """Raise or disarm one alarm; return it, or nothing where none was there to disarm."""
        pair = (request.alarm, request.memberID)
        name = _NAME.pack(*pair)
        if request.action == AlarmRequest.ACTIVATE:
            self._store.backend.txn.put(name, seal(name, b""), db=self._store.backend.alarms)
            self._active.add(pair)
        elif pair in self._active:
            self._store.backend.txn.delete(name, db=self._store.backend.alarms)
            self._active.discard(pair)
        else:
            return []
        self._summarize()
        return [_member(*pair)]


def _member(kind: int, member_id: int) -> AlarmMember:
    alarm = AlarmMember(memberID=member_id)
    # The type came from a request and may be one that this release does not name.
    alarm.alarm = kind  # type: ignore[assignment]
    return alarm
