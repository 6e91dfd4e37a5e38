"""Real etcdctl 3.4 against three kvstore nodes."""
