"""PySyncObj as published, with its own journal and dump, behind a small adapter.

Raftyard's own engine on PySyncObj keeps its log elsewhere and survives what this one does not; here
is the library as a user of it meets it.
"""
