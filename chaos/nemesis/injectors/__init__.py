"""What carries faults out on real processes, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chaos.nemesis.injectors.admin import Compact, Defragment, Snapshot, Transfer
from chaos.nemesis.injectors.base import Injector
from chaos.nemesis.injectors.clocks import Skew, Strobe
from chaos.nemesis.injectors.disks import Damage, PowerLoss, Switch, Wipe
from chaos.nemesis.injectors.failpoint import Failpoint
from chaos.nemesis.injectors.membership import AddMember, RemoveMember
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
    "proc.failpoint": Failpoint,
    "disk.power_loss": PowerLoss,
    "disk.bit_flip": Damage,
    "disk.truncate": Damage,
    "disk.wipe": Wipe,
    "clock.skew": Skew,
    "clock.strobe": Strobe,
    "admin.compact": Compact,
    "admin.defragment": Defragment,
    "admin.snapshot": Snapshot,
    "admin.transfer": Transfer,
    "member.add": AddMember,
    "member.remove": RemoveMember,
    **dict.fromkeys(Switch.COUNTERS, Switch),
}

INJECTORS: Final[Mapping[str, type[Injector]]] = {
    kind: _OTHERS.get(kind, Toxic) for kind in FAULT_CLASSES
}
"""Every class of fault that the vocabulary knows; what is not named above is a toxic."""
