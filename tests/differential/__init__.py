"""One random sequence of operations, two systems, and every answer compared.

A seeded generator writes the sequence (``generator``); a real etcd 3.4.23 answers it first and a
three-node cluster after it, each operation at a random member (``driver``); the comparer
(``compare``) looks at every field of every answer and of every watch event. What differs on purpose
stands by name in ``expected_differences``. Replay: ``python -m tests.differential --seed N``.
"""
