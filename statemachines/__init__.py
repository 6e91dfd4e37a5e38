"""Ready-made replicated state machines, and wrappers that give any machine more."""
