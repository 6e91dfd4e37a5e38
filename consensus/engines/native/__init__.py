"""The native engine: our own Raft core over a checked, synced log, and a transport of our own."""

from consensus.engines.native.engine import NativeEngine

__all__ = ["NativeEngine"]
