"""``kvctl``: etcdctl's commands for kvstore, and for etcd itself.

One module for each group of commands, imported only when its command runs; one printer for each
output format. ``app`` holds the list of commands; ``settings`` the options that all share.
``ETCDCTL_API=2`` in the environment chooses the commands of etcdctl's second API, which are in
``v2`` and work on the same v3 data.
"""

from __future__ import annotations


def main() -> None:
    """Run kvctl with the process's arguments, and exit with its status."""
    from kvstore.cli.kvctl.app import run

    run()
