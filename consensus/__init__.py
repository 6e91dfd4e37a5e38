"""Replicated state machines: write plain Python, run it on three machines."""

__version__ = "0.1.0"
