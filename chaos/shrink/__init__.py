"""Shrinking: from a seed that fails to the few faults and operations without which it does not."""
