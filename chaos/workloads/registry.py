"""Workloads by name: our own, and anybody's as "module:Workload"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chaos.workloads.base import Workload, WorkloadFailed
from chaos.workloads.compaction import CompactionWorkload
from chaos.workloads.leasing import LeaseWorkload
from chaos.workloads.loading import load
from chaos.workloads.locking import ElectionWorkload, LockWorkload, UnfencedLockWorkload
from chaos.workloads.membership import MembershipWorkload
from chaos.workloads.register import (
    CompareAndSetWorkload,
    LargeValueWorkload,
    RegisterWorkload,
    SnapshotWorkload,
)
from chaos.workloads.served import CounterWorkload, QueueWorkload
from chaos.workloads.transactions import AppendWorkload, BankWorkload, SetWorkload
from chaos.workloads.watching import WatchWorkload

_OWN: Final[tuple[type[Workload[Any]], ...]] = (
    RegisterWorkload,
    CompareAndSetWorkload,
    AppendWorkload,
    SetWorkload,
    BankWorkload,
    CounterWorkload,
    QueueWorkload,
    WatchWorkload,
    LeaseWorkload,
    LockWorkload,
    UnfencedLockWorkload,
    ElectionWorkload,
    CompactionWorkload,
    MembershipWorkload,
    SnapshotWorkload,
    LargeValueWorkload,
)

WORKLOADS: Final[Mapping[str, type[Workload[Any]]]] = {each.name: each for each in _OWN}
"""Every workload of ours, by the name that ``chaos run --workload`` takes."""


def find_workload(name: str) -> type[Workload[Any]]:
    """Return the workload that ``name`` says: one of ``WORKLOADS``, or "module:Workload".

    Raises:
        WorkloadFailed: there is none; the text says what there is, or why it cannot be loaded.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    if ":" not in name:
        raise WorkloadFailed(
            f"{name!r} is not a workload; there are {', '.join(WORKLOADS)}, "
            "and your own as module:Workload"
        )
    found = load(name)
    if not isinstance(found, type) or not issubclass(found, Workload):
        raise WorkloadFailed(f"{name} is no Workload class")
    return found
