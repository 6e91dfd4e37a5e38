"""Keys, ranges and values worth trying: short and long, binary, nested, at the edges of ranges."""

from __future__ import annotations

import random
from typing import Final

import attrs

FROM_KEY: Final = b"\x00"
"""As a range end: everything from the key on."""

LONG_KEY_BYTES: Final = (511, 512, 513, 1200)
"""Around and beyond the 511 bytes that LMDB can hold as a key."""


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key above all keys with this prefix; ``FROM_KEY`` when there is none."""
    for position in range(len(prefix) - 1, -1, -1):
        if prefix[position] < 0xFF:
            return prefix[:position] + bytes([prefix[position] + 1])
    return FROM_KEY


def _plain(rng: random.Random, count: int) -> list[bytes]:
    return [f"key{number}".encode() for number in range(count)]


def _paths(rng: random.Random, count: int) -> list[bytes]:
    return [f"/app/{number % 4}/item{number}".encode() for number in range(count)]


def _nested(rng: random.Random, count: int) -> list[bytes]:
    return [b"a" * (1 + number) for number in range(min(count, 40))]


def _binary(rng: random.Random, count: int) -> list[bytes]:
    edges = [b"\x00", b"\x00\x00", b"\xff", b"\xff\xff", b"\xff\xff\x00", b"a\x00", b"a\xff"]
    return edges + [rng.randbytes(rng.randint(1, 6)) for _ in range(count)]


def _long(rng: random.Random, count: int) -> list[bytes]:
    stem = b"long/" + b"x" * (LONG_KEY_BYTES[0] - 5)
    keys = []
    for number in range(min(count, 12)):
        length = LONG_KEY_BYTES[number % len(LONG_KEY_BYTES)]
        keys.append((stem + f"{number:05d}".encode() + b"y" * 1200)[:length])
    return [*keys, stem[:511], stem[:510], stem[:511] + b"\x00"]


SHAPES: Final = (_plain, _paths, _nested, _binary, _long)


@attrs.frozen(slots=True)
class KeySpace:
    """The keys of one stretch of the sequence."""

    keys: tuple[bytes, ...]

    @classmethod
    def draw(cls, rng: random.Random) -> KeySpace:
        """A shape and a size at random; a few keys are of another shape."""
        count = rng.choice((3, 8, 30, 120))
        main = rng.choice(SHAPES)(rng, count)
        other = rng.choice(SHAPES)(rng, 3)
        return cls(tuple(main + other[:3]))

    def key(self, rng: random.Random) -> bytes:
        """One key."""
        return rng.choice(self.keys)

    def range(self, rng: random.Random) -> tuple[bytes, bytes]:
        """A key and a range end: single key, prefix, interval, from-key, all, or empty."""
        key = self.key(rng)
        kind = rng.random()
        if kind < 0.35:
            return key, b""
        if kind < 0.6:
            prefix = key[: rng.randint(1, len(key))]
            return prefix, prefix_end(prefix)
        if kind < 0.8:
            return key, self.key(rng)
        if kind < 0.88:
            return key, FROM_KEY
        if kind < 0.95:
            return FROM_KEY, FROM_KEY
        return key, key

    def value(self, rng: random.Random) -> bytes:
        """A value: mostly short, sometimes empty, binary or some kilobytes."""
        kind = rng.random()
        if kind < 0.1:
            return b""
        if kind < 0.9:
            return f"value{rng.randint(0, 9)}".encode()
        if kind < 0.97:
            return rng.randbytes(rng.randint(1, 40))
        return bytes([rng.randint(0, 255)]) * rng.randint(1000, 5000)
