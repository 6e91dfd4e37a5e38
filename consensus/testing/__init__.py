"""Contract suites: what an engine and a state machine promise, as tests that anybody can run.

Subclass a suite in a test module and say how to make the thing under test; pytest does the rest.
The suites need pytest and nothing else::

    class TestMyMachine(StateMachineContract):
        def make_machine(self, directory):
            return MyMachine(directory)

        def commands(self):
            return [b"put a 1", b"put b 2", b"del a"]

        def queries(self):
            return [b"get a", b"get b"]
"""

from consensus.testing.engines import EngineContract, EngineGroup
from consensus.testing.machines import BreakableMachine, RecordingMachine
from consensus.testing.membership import MembershipContract
from consensus.testing.statemachines import StateMachineContract

__all__ = [
    "BreakableMachine",
    "EngineContract",
    "EngineGroup",
    "MembershipContract",
    "RecordingMachine",
    "StateMachineContract",
]
