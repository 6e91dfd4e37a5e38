"""What carries faults out on real processes, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chaos.nemesis.injectors.base import Injector
from chaos.nemesis.injectors.network import Flap, Partition, Stall, Toxic
from chaos.nemesis.injectors.processes import Kill, Pause, RestartLoop, RollingRestart, Starve
from chaos.nemesis.vocabulary import FAULT_CLASSES

_OTHERS: Final[Mapping[str, type[Injector]]] = {
    "net.partition": Partition,
    "net.stall": Stall,
    "net.flap": Flap,
    "proc.kill": Kill,
    "proc.pause": Pause,
    "proc.starve": Starve,
    "proc.restart_loop": RestartLoop,
    "proc.rolling_restart": RollingRestart,
}

INJECTORS: Final[Mapping[str, type[Injector]]] = {
    kind: _OTHERS.get(kind, Toxic) for kind in FAULT_CLASSES
}
"""Every class of fault that the vocabulary knows; what is not named above is a toxic."""
