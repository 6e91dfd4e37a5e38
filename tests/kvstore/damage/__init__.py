"""Damage to one member's data, in every place and at every moment: see docs/DAMAGE.md."""
