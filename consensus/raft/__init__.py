"""The pure Raft core: messages and ticks go in, one ``Ready`` at a time comes out.

Nothing in this package does I/O, reads a clock, draws from a global source of randomness or logs.
Time is a count of ticks; randomness is a ``random.Random`` that the caller passes in. That is what
lets a simulator run the very code that runs in production; an import contract enforces it.

Read in this order: ``messages``, ``ready``, ``core`` (roles and the public face), ``election``,
``replication``, ``reads``, ``membership``. Sections cited are of Ongaro's thesis, "Consensus:
Bridging Theory and Practice", unless the text says "paper".
"""
