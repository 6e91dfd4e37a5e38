"""The errors of etcd's v2 API that its commands can meet: number, text, key, index."""

from __future__ import annotations

from typing import Final

from kvstore.cli.kvctl.failures import Failure

EXIT_FROM_ETCD: Final = 4

KEY_NOT_FOUND: Final = (100, "Key not found")
COMPARE_FAILED: Final = (101, "Compare failed")
NOT_A_FILE: Final = (102, "Not a file")
NOT_A_DIRECTORY: Final = (104, "Not a directory")
KEY_EXISTS: Final = (105, "Key already exists")
ROOT_IS_READ_ONLY: Final = (107, "Root is read only")
DIRECTORY_NOT_EMPTY: Final = (108, "Directory not empty")


class V2Error(Failure):
    """An error as etcdctl v2 prints it: ``100: Key not found (/a) [7]``; exit status 4."""

    gap = "  "

    def __init__(self, error: tuple[int, str], cause: str, index: int) -> None:
        number, text = error
        super().__init__(f"{number}: {text} ({cause}) [{index}]", EXIT_FROM_ETCD)
        self.number = number
