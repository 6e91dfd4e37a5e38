"""Real processes on loopback: members of a target, the links between them, and what breaks them."""
