"""What breaks a cluster: faults, plans of faults drawn from a seed, and carrying them out."""
