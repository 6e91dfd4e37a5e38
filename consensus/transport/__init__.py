"""How members reach each other: frames, connections, queues. Nothing here knows Raft's rules."""
