"""Watches: the hub that every revision passes, and one stream for each client's Watch call."""

from kvstore.watch.hub import WatchHub
from kvstore.watch.stream import WatchStream

__all__ = ["WatchHub", "WatchStream"]
