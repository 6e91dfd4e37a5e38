"""Exhaustive search of small worlds: the real core, and every order of what can happen to it."""
