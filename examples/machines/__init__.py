"""The tutorial's five uses, each on a ready-made replicated state machine."""
