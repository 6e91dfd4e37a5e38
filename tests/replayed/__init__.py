"""Bugs of real systems, replayed: each a script that is red with the bug and green without."""
