"""Ready-made replicated state machines.

Each is plain Python over ``consensus.MethodMachine`` and runs on any engine::

    async with Node(Locks(), engine) as node:
        locks = Handle(node, Locks)
        grant = await locks.acquire(name="backup", owner="host-1", ttl_ms=10_000)

``Register``, ``Counter`` and ``Map`` hold data; ``Queue`` and ``Scheduler`` hand out work;
``Locks``, ``Semaphores`` and ``Elections`` decide who may; ``ServiceRegistry`` says who is there;
``SessionMachine`` wraps any of them so that a command repeated by its client has one effect.
"""

from statemachines.counter import Counter
from statemachines.election import Elections
from statemachines.lock import Locks
from statemachines.map import Map
from statemachines.queue import Queue
from statemachines.register import Register
from statemachines.registry import ServiceRegistry
from statemachines.scheduler import Scheduler
from statemachines.semaphore import Semaphores
from statemachines.session_client import Session, SessionEnded
from statemachines.sessions import SessionMachine
from statemachines.timed import TimedMachine, tick_while_leading

__all__ = [
    "Counter",
    "Elections",
    "Locks",
    "Map",
    "Queue",
    "Register",
    "Scheduler",
    "Semaphores",
    "ServiceRegistry",
    "Session",
    "SessionEnded",
    "SessionMachine",
    "TimedMachine",
    "tick_while_leading",
]
