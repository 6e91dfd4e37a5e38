"""Measurements: kvstore beside a real etcd, and the engines alone. See README.md here."""
