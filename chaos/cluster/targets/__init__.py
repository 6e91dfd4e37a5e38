"""What a run can be made against: how one member of each kind is started."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.cluster.targets.base import Target
from chaos.cluster.targets.etcd import EtcdTarget
from chaos.cluster.targets.kvstore import KvstoreTarget

TARGETS: Mapping[str, type[Target]] = {"kvstore": KvstoreTarget, "etcd": EtcdTarget}
"""The targets by the name that ``chaos run --target`` takes."""
