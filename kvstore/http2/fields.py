"""HPACK, decoded on a short way where it has its usual forms (RFC 7541).

Go's client puts every field into the dynamic table, the timeout of each call too, so every block
changes the table, and the references to one and the same field move with each call: a block cannot
be known again by its bytes. But nearly all of it is one-byte references, and short values under a
name from the table. Those are read here, on the table of the ``hpack`` library; from the first byte
on that is anything else, the library reads the block.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import hpack
from hpack.exceptions import HPACKDecodingError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

HEADER_LIST_BYTES_MAX: Final = 64 * 1024
"""Most that one request's headers may take, as RFC 9113 counts; more ends the connection."""
FIELD_OVERHEAD_BYTES: Final = 32
"""What a field counts beyond its name and value (RFC 7541, section 4.1)."""
FEW_FIELDS_MAX: Final = 15
"""So many cannot take too much: a name and value from a table of 4 KiB, or a name from there and a
value of less than 127 bytes as coded."""
VALUES_REMEMBERED_MAX: Final = 4_096
"""Huffman-coded values whose text is kept: timeouts come near the same few again and again."""

INDEXED: Final = 0x80
"""A first byte from here on is the number of a field, in seven bits."""
INDEX_LONG: Final = 0x7F
LITERAL: Final = 0x40
"""A first byte from here on is the number of a name, in six bits, of which 0 is none."""
NAME_LONG: Final = 0x3F
CONTINUES: Final = 0x80
"""A second byte of a number below this is its last."""
SIZE_UPDATE: Final = 0x20
SIZE_UPDATE_MASK: Final = 0xE0
HUFFMAN: Final = 0x80
LENGTH_MASK: Final = 0x7F
STATIC: Final[Sequence[Field]] = HeaderTable.STATIC_TABLE
STATIC_SIZE: Final = len(STATIC)

text_of = functools.lru_cache(maxsize=VALUES_REMEMBERED_MAX)(decode_huffman)


class FieldDecoder:
    """Decodes one connection's header blocks to fields."""

    def __init__(self) -> None:
        self._library = hpack.Decoder(max_header_list_size=HEADER_LIST_BYTES_MAX)

    def decode(self, block: bytes) -> Sequence[Field]:
        """Return a block's fields, in order; the table follows it.

        Raises:
            HPACKError: it is not HPACK.
            OversizedHeaderListError: the fields take more than ``HEADER_LIST_BYTES_MAX``.
        """
        fields: list[Field] = []
        table = self._library.header_table
        known = table.dynamic_entries
        at, size = 0, len(block)
        while at < size:
            first = block[at]
            if first >= INDEXED:
                index, next_at = first - INDEXED, at + 1
                if index == INDEX_LONG and next_at < size and block[next_at] < CONTINUES:
                    index += block[next_at]
                    next_at += 1
                elif index == INDEX_LONG or not index:
                    break
                if index <= STATIC_SIZE:
                    fields.append(STATIC[index - 1])
                elif index <= STATIC_SIZE + len(known):
                    fields.append(known[index - STATIC_SIZE - 1])
                else:
                    break
                at = next_at
                continue
            index, next_at = first - LITERAL, at + 1
            if index == NAME_LONG and next_at < size and block[next_at] < CONTINUES:
                index += block[next_at]
                next_at += 1
            elif index <= 0 or index == NAME_LONG:
                break
            if next_at >= size:
                break
            coded = block[next_at]
            length, next_at = coded & LENGTH_MASK, next_at + 1
            end = next_at + length
            if length == LENGTH_MASK or end > size:
                break
            value = text_of(block[next_at:end]) if coded & HUFFMAN else block[next_at:end]
            name = table.get_by_index(index)[0]
            table.add(name, value)
            fields.append((name, value))
            at = end
        if at < size:
            if fields and block[at] & SIZE_UPDATE_MASK == SIZE_UPDATE:
                raise HPACKDecodingError("the table changes its size inside a block")
            fields += self._library.decode(block[at:], raw=True)
        elif len(fields) <= FEW_FIELDS_MAX:
            return fields
        if list_bytes(fields) > HEADER_LIST_BYTES_MAX:
            raise OversizedHeaderListError(f"more than {HEADER_LIST_BYTES_MAX} bytes of headers")
        return fields


def list_bytes(fields: Sequence[Field]) -> int:
    """Return what fields take together, as RFC 9113 counts."""
    return sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in fields)
