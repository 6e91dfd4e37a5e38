"""The same uses on kvstore (or any etcd v3 server) through its Python client."""
