"""Real programs of other projects against a kvstore of three nodes."""
