"""Workloads: what clients do while faults happen."""
