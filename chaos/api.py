"""What one needs to bring one's own machine, model and workload; docs/CHAOS.md is the guide.

::

    chaos run --machine shop:Shop --model shop:ShopModel --workload shop:Buyers

- The *machine* is any ``consensus.StateMachine``, as ``raftyard serve`` takes it.
- The *model* says what it should do, one call after the other (``SequentialModel``).
- The *workload* says what clients call (``ModelWorkload``), or, for checks of another kind,
  everything that clients do (``MachineWorkload``, or ``KvWorkload`` for etcd's API).
"""

from chaos.cell import CellOptions, CellResult, run_cell
from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.durability import check_convergence
from chaos.checkers.modelled import SequentialModel, check_against
from chaos.checkers.pipeline import Report, check_history
from chaos.cluster.targets.kvstore import KvstoreTarget
from chaos.cluster.targets.machine import MachineTarget
from chaos.history.format import History, Operation, Outcome
from chaos.history.reader import read_history
from chaos.verdict import CheckResult, Finding, Findings, Kind, Verdict
from chaos.workloads.base import Check, NotApplied, Process, Workload, WorkloadOptions
from chaos.workloads.kv import KvProcess, KvWorkload
from chaos.workloads.machine import MachineProcess, MachineWorkload
from chaos.workloads.modelled import Call, ModelWorkload

__all__ = [
    "Call",
    "CellOptions",
    "CellResult",
    "Check",
    "CheckResult",
    "Finding",
    "Findings",
    "History",
    "Kind",
    "KvProcess",
    "KvWorkload",
    "KvstoreTarget",
    "LoadFloor",
    "MachineProcess",
    "MachineTarget",
    "MachineWorkload",
    "ModelWorkload",
    "NotApplied",
    "Operation",
    "Outcome",
    "Process",
    "Report",
    "SequentialModel",
    "Verdict",
    "Workload",
    "WorkloadOptions",
    "check_against",
    "check_convergence",
    "check_history",
    "read_history",
    "run_cell",
]
