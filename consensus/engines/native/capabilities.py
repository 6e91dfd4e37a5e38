"""What the native engine promises."""

from __future__ import annotations

from typing import Final

from consensus.engine import Capabilities, Fault

FEATURE_LEVEL: Final = 1
"""What this release's programs know, unless they say otherwise."""

CAPABILITIES: Final = Capabilities(
    survives=(
        Fault.PROCESS_CRASH_MINORITY
        | Fault.PROCESS_CRASH_ALL
        | Fault.POWER_LOSS
        | Fault.PARTITION
        | Fault.PAUSE
        | Fault.MESSAGE_LOSS
        | Fault.MESSAGE_DUPLICATION
        | Fault.MESSAGE_REORDERING
        | Fault.DISK_CORRUPTION
    ),
    membership_change=True,
    learners=True,
    joint_consensus=True,
    read_index=True,
    leadership_transfer=True,
    notes=(
        "A damaged disk is repaired from the other members; the only member of a group stops and "
        "says what is damaged.",
    ),
)
"""The same for every member, whatever its settings."""
