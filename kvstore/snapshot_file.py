"""A saved snapshot as a file: what ``snapshot save`` receives and ``snapshot restore`` reads.

etcd's clients check two things about a snapshot, whatever is in it: its size is a multiple of 512
plus 32, and the last 32 bytes are the SHA-256 of all before. So the machine's own stream is padded:

    stream | zeros | length of the stream (8 bytes, big endian) | SHA-256 of all before

where everything before the digest is a multiple of 512 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from consensus.errors import StorageError

BLOCK_BYTES: Final = 512
LENGTH_BYTES: Final = 8
DIGEST_BYTES: Final = 32
PIECE_BYTES: Final = 256 * 1024


def tail(stream_bytes: int) -> bytes:
    """Return what follows a stream of this length, up to the digest."""
    zeros = -(stream_bytes + LENGTH_BYTES) % BLOCK_BYTES
    return bytes(zeros) + stream_bytes.to_bytes(LENGTH_BYTES, "big")


def check_snapshot_file(path: Path) -> int:
    """Check a saved snapshot and return the length of the machine's stream in it.

    Raises:
        StorageError: it cannot be read, is cut, or is damaged.
    """
    try:
        size = path.stat().st_size
        if size <= DIGEST_BYTES or size % BLOCK_BYTES != DIGEST_BYTES:
            raise StorageError(
                f"{path} is not a whole snapshot: {size} bytes, expected a multiple of "
                f"{BLOCK_BYTES} and {DIGEST_BYTES} more; save it again"
            )
        digest = hashlib.sha256()
        with path.open("rb") as file:
            left = size - DIGEST_BYTES
            length = b""
            while left:
                piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    raise StorageError(f"{path} became shorter while it was read")
                digest.update(piece)
                left -= len(piece)
                length = (length + piece)[-LENGTH_BYTES:]
            if file.read(DIGEST_BYTES) != digest.digest():
                raise StorageError(f"{path} is damaged: its checksum does not match; save it again")
    except OSError as error:
        raise StorageError(f"cannot read snapshot {path}: {error.strerror}") from None
    stream_bytes = int.from_bytes(length, "big")
    if len(tail(stream_bytes)) + stream_bytes != size - DIGEST_BYTES:
        raise StorageError(f"{path} is a snapshot of another program (etcd's own, perhaps)")
    return stream_bytes


def stream_pieces(path: Path) -> Iterator[bytes]:
    """Yield the machine's stream out of a saved snapshot, checked first.

    Raises:
        StorageError: see ``check_snapshot_file``.
    """
    left = check_snapshot_file(path)
    with path.open("rb") as file:
        while left:
            piece = file.read(min(PIECE_BYTES, left))
            if not piece:
                raise StorageError(f"{path} became shorter while it was read")
            left -= len(piece)
            yield piece
