"""PySyncObj as it is, in a simulated cluster: what it loses, found by seed."""
