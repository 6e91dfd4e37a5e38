"""The simulator: a whole cluster in one process, driven by one seed.

It runs the real core, log and driver of the native engine against a virtual clock, a network that
delays, loses, repeats, reorders and cuts, and disks that forget what was not synced. Raft's
invariants are checked after every event. A failing seed replays exactly, in any process.
"""
