"""Checkers: each reads a history and says ok, violated, or unknown, with its evidence."""
