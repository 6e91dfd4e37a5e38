"""The multi-version store: every key at every revision since the last compaction, on LMDB.

``store.Store`` is the entry; ``docs/decisions/0002-mvcc-on-lmdb.md`` says why it is built so.
"""
