"""What a run can be made against: how one member of each kind is started."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.cluster.targets.base import Target, TargetUnavailable
from chaos.cluster.targets.etcd import EtcdTarget
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.cluster.targets.machine import MachineTarget

TARGETS: Mapping[str, type[Target]] = {"kvstore": KvstoreTarget, "etcd": EtcdTarget}
"""The targets by the name that ``chaos run --target`` takes."""


def target_of(name: str, engine: str, machine: str = "") -> Target:
    """Return what is to be started.

    Args:
        name: as ``chaos run --target`` takes it.
        engine: what replicates it, where that can be chosen.
        machine: "module:Machine", to serve that instead.

    Raises:
        TargetUnavailable: there is no such target.
    """
    if machine:
        return MachineTarget(machine, engine)
    if name not in TARGETS:
        raise TargetUnavailable(f"{name!r} is no target; there are {', '.join(TARGETS)}")
    return KvstoreTarget(engine) if name == KvstoreTarget.name else TARGETS[name]()
