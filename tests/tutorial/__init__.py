"""The etcd tutorial for newcomers, line by line: kvstore for etcd, kvctl for etcdctl."""
