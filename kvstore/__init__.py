"""An etcd v3 compatible key-value and watch store, built as one Raftyard state machine."""

from typing import Final

#: The etcd release whose API and behaviour kvstore follows. Clients parse it: dotted integers only.
ETCD_VERSION: Final = "3.6.5"
#: What a cluster of such members reports as its cluster version.
ETCD_CLUSTER_VERSION: Final = "3.6.0"
