"""What survives a crash: the write-ahead log, snapshot files, and the lock on a data directory.

All of it goes through the small interface in ``files``, behind which a simulator puts a disk that
forgets, tears, flips and fails. Nothing here knows Raft's rules.
"""
