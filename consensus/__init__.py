"""Replicated state machines: write plain Python, run it on three machines.

Write a ``StateMachine`` (or, shorter, a ``MethodMachine``), choose an engine, and put both into a
``Node``. See ``examples/counter.py``.
"""

from consensus.engine import Capabilities, Engine, EngineHost, Fault
from consensus.errors import (
    ConfigError,
    ConsensusError,
    Halted,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    QueueFull,
    ReadFailed,
    Stopped,
    StorageError,
    Unsupported,
)
from consensus.handle import Handle
from consensus.methods import MethodMachine, Refused, command, query
from consensus.node import Node
from consensus.statemachine import BytesSnapshot, StateMachine, StateSnapshot
from consensus.types import (
    Applied,
    Committed,
    Consistency,
    EngineStatus,
    Entry,
    Member,
    NodeId,
    NodeStatus,
    Position,
    Proposal,
    ProposalId,
    Role,
)

__version__ = "0.1.0"

__all__ = [
    "Applied",
    "BytesSnapshot",
    "Capabilities",
    "Committed",
    "ConfigError",
    "ConsensusError",
    "Consistency",
    "Engine",
    "EngineHost",
    "EngineStatus",
    "Entry",
    "Fault",
    "Halted",
    "Handle",
    "Member",
    "MethodMachine",
    "Node",
    "NodeId",
    "NodeStatus",
    "NotLeader",
    "OutcomeUnknown",
    "Position",
    "Proposal",
    "ProposalDropped",
    "ProposalId",
    "QueueFull",
    "ReadFailed",
    "Refused",
    "Role",
    "StateMachine",
    "StateSnapshot",
    "Stopped",
    "StorageError",
    "Unsupported",
    "command",
    "query",
]
