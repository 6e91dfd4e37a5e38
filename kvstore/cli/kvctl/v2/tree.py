"""Files and directories over v3 keys: each change is one transaction, checked and done at once.

Every change is a ``Txn`` whose conditions are v2's rules; one that fails looks again to say which
rule was broken. ``Tree`` makes the transactions; the commands print.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from kvstore.cli.kvctl.failures import Failure
from kvstore.cli.kvctl.v2.errors import (
    COMPARE_FAILED,
    DIRECTORY_NOT_EMPTY,
    KEY_EXISTS,
    KEY_NOT_FOUND,
    NOT_A_DIRECTORY,
    NOT_A_FILE,
    ROOT_IS_READ_ONLY,
    V2Error,
)
from kvstore.client import (
    Delete,
    Get,
    KeyValue,
    Put,
    RangeResult,
    Txn,
    create_revision,
    mod_revision,
    value,
    version,
)

if TYPE_CHECKING:
    from kvstore.client import AsyncClient, TxnResult
    from kvstore.client.txn import Comparison


def cleaned(key: bytes) -> bytes:
    """Return a v2 key: an absolute path, without a slash at the end."""
    text = key.decode("utf-8", "surrogateescape")
    return posixpath.normpath("/" + text.lstrip("/")).encode("utf-8", "surrogateescape")


def shown(key: bytes) -> str:
    """Return a key as messages show it."""
    return key.decode("utf-8", "replace")


def below(key: bytes) -> bytes:
    """Return the prefix of everything in the directory ``key``; its marker is that very key."""
    return key if key.endswith(b"/") else key + b"/"


def ancestors(key: bytes) -> list[bytes]:
    """Return the directories that ``key`` is in, but for the root."""
    parts = key.strip(b"/").split(b"/")[:-1]
    lead = b"/" if key.startswith(b"/") else b""
    return [lead + b"/".join(parts[: count + 1]) for count in range(len(parts))]


@attrs.frozen(slots=True)
class Found:
    """What there is: the key, whether something is below it, a file among its parents."""

    kv: KeyValue | None
    children: int
    file_above: bytes | None
    index: int


class Tree:
    """v2's view of a v3 keyspace."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def set(
        self,
        key: bytes,
        data: bytes,
        ttl_s: int = 0,
        swap_value: bytes | None = None,
        swap_index: int = 0,
    ) -> None:
        """Write a file; with ``swap_...`` only if it is as expected (101, or 100 if missing)."""
        await self._refuse_root(key)
        put = Put(key, data, lease=await self._lease(ttl_s))
        if swap_value is not None or swap_index:
            await self._swap(key, put, swap_value, swap_index)
            return
        done = await self._client.txn(
            when=[version(key) > 0],
            then=[put],
            otherwise=[Txn(when=self._free(key), then=[put])],
        )
        if not done.succeeded and not _nested_succeeded(done):
            await self._explain_occupied(key)

    async def _swap(self, key: bytes, put: Put, swap_value: bytes | None, swap_index: int) -> None:
        done = await self._client.txn(
            when=_expected(key, swap_value, swap_index), then=[put], otherwise=[Get(key)]
        )
        if not done.succeeded:
            self._explain_swap(key, _kvs(done), done.header.revision, swap_value, swap_index)

    @staticmethod
    def _explain_swap(
        key: bytes,
        kvs: Sequence[KeyValue],
        index: int,
        swap_value: bytes | None,
        swap_index: int,
    ) -> None:
        if not kvs:
            raise V2Error(KEY_NOT_FOUND, shown(key), index)
        causes = []
        if swap_value is not None and kvs[0].value != swap_value:
            causes.append(f"[{shown(swap_value)} != {shown(kvs[0].value)}]")
        if swap_index and kvs[0].mod_revision != swap_index:
            causes.append(f"[{swap_index} != {kvs[0].mod_revision}]")
        raise V2Error(COMPARE_FAILED, " ".join(causes), index)

    async def make(self, key: bytes, data: bytes, ttl_s: int = 0) -> None:
        """Write a new file; 105 if there is a file or directory of that name."""
        await self._refuse_root(key)
        put = Put(key, data, lease=await self._lease(ttl_s))
        done = await self._client.txn(when=[version(key) == 0, *self._free(key)], then=[put])
        if not done.succeeded:
            found = await self._look(key)
            if found.kv is not None or found.children:
                raise V2Error(KEY_EXISTS, shown(key), found.index)
            await self._explain_occupied(key)

    async def make_in_order(self, directory: bytes, data: bytes, ttl_s: int = 0) -> bytes:
        """Write a new file with a name that grows, in ``directory``; returns its key."""
        lease = await self._lease(ttl_s)
        while True:
            index = (await self._client.range(directory, count_only=True)).header.revision + 1
            key = below(directory) + f"{index:020d}".encode()
            done = await self._client.txn(
                when=[version(key) == 0], then=[Put(key, data, lease=lease)]
            )
            if done.succeeded:
                return key

    async def update(self, key: bytes, data: bytes, ttl_s: int = 0) -> None:
        """Write a file that exists; 100 if it does not, 102 if it is a directory."""
        await self._refuse_root(key)
        put = Put(key, data, lease=await self._lease(ttl_s))
        done = await self._client.txn(when=[version(key) > 0], then=[put])
        if not done.succeeded:
            await self._explain_missing(key)

    async def get(self, key: bytes, linearizable: bool = True) -> KeyValue:
        """Read a file; 100 if it is missing, and a plain failure if it is a directory."""
        kv = await self._client.get(key, serializable=not linearizable)
        if kv is not None:
            return kv
        found = await self._look(key)
        if found.children or key == b"/":
            raise Failure(f"{shown(key)}: is a directory")
        raise V2Error(KEY_NOT_FOUND, shown(key), found.index)

    async def remove(
        self, key: bytes, with_value: bytes | None = None, with_index: int = 0
    ) -> KeyValue:
        """Remove a file and return it; 100 if it is missing, 102 if it is a directory."""
        await self._refuse_root(key)
        conditions = _expected(key, with_value, with_index) or [version(key) > 0]
        done = await self._client.txn(
            when=conditions, then=[Get(key), Delete(key)], otherwise=[Get(key)]
        )
        kvs = _kvs(done)
        if not done.succeeded:
            if kvs:
                self._explain_swap(key, kvs, done.header.revision, with_value, with_index)
            await self._explain_missing(key)
        return kvs[0]

    async def remove_tree(self, key: bytes) -> KeyValue | None:
        """Remove a file, or a directory with all in it; returns the file, if it was one."""
        await self._refuse_root(key)
        done = await self._client.txn(
            then=[
                Get(key),
                Get(below(key), prefix=True, limit=1),
                Delete(key),
                Delete(below(key), prefix=True),
            ]
        )
        kvs, inside = _kvs(done, 0), _kvs(done, 1)
        if not kvs and not inside:
            raise V2Error(KEY_NOT_FOUND, shown(key), done.header.revision)
        return kvs[0] if kvs else None

    async def remove_empty(self, key: bytes) -> KeyValue | None:
        """Remove a file, or a directory with nothing in it (else 108)."""
        await self._refuse_root(key)
        kv = await self._client.get(key)
        if kv is not None:
            return await self.remove(key)
        marker = below(key)
        inside = create_revision(marker + b"\0", marker[:-1] + b"0") == 0
        done = await self._client.txn(when=[version(marker) > 0, inside], then=[Delete(marker)])
        if done.succeeded:
            return None
        found = await self._look(key)
        if found.children:
            raise V2Error(DIRECTORY_NOT_EMPTY, shown(key), found.index)
        raise V2Error(KEY_NOT_FOUND, shown(key), found.index)

    async def make_directory(self, key: bytes, ttl_s: int = 0, anew: bool = True) -> None:
        """Mark a directory; 105 if the name is taken, 102 if by a file when not ``anew``."""
        await self._refuse_root(key)
        put = Put(below(key), b"", lease=await self._lease(ttl_s))
        conditions = [version(key) == 0, *self._files_above(key)]
        if anew:
            conditions.append(self._nothing_below(key))
        done = await self._client.txn(when=conditions, then=[put])
        if done.succeeded:
            return
        found = await self._look(key)
        if found.file_above is not None:
            raise V2Error(NOT_A_DIRECTORY, shown(found.file_above), found.index)
        raise V2Error(KEY_EXISTS if anew else NOT_A_FILE, shown(key), found.index)

    async def update_directory(self, key: bytes, ttl_s: int = 0) -> None:
        """Mark a directory that exists, with a new time to live; 100 if it does not."""
        await self._refuse_root(key)
        found = await self._look(key)
        if found.kv is None and not found.children:
            raise V2Error(KEY_NOT_FOUND, shown(key), found.index)
        await self.make_directory(key, ttl_s, anew=False)

    async def names(self, key: bytes, recursive: bool, slashes: bool) -> list[bytes]:
        """Return the names in a directory in order, or the file itself; 100 if there is neither."""
        prefix = below(key)
        found = await self._client.range(prefix, prefix=True, keys_only=True)
        names = [kv.key for kv in found.kvs if kv.key != prefix]
        if not found.kvs and key != b"/":
            if await self._client.get(key) is None:
                raise V2Error(KEY_NOT_FOUND, shown(key), found.header.revision)
            return [key]
        entries: dict[tuple[bytes, ...], bool] = {}
        for name in names:
            parts = tuple(name[len(prefix) :].rstrip(b"/").split(b"/"))
            for depth in range(1, len(parts)):
                entries[parts[:depth]] = True
            entries[parts] = entries.get(parts, False) or name.endswith(b"/")
        return [
            prefix + b"/".join(parts) + (b"/" if slashes and entries[parts] else b"")
            for parts in sorted(entries)
            if recursive or len(parts) == 1
        ]

    async def _lease(self, ttl_s: int) -> int:
        return (await self._client.lease_grant(ttl_s)).id if ttl_s else 0

    async def _refuse_root(self, key: bytes) -> None:
        if key == b"/":
            now = await self._client.range(key, count_only=True)
            raise V2Error(ROOT_IS_READ_ONLY, "/", now.header.revision)

    @staticmethod
    def _nothing_below(key: bytes) -> Comparison:
        return create_revision(below(key), prefix=True) == 0

    @staticmethod
    def _files_above(key: bytes) -> list[Comparison]:
        return [version(each) == 0 for each in ancestors(key)]

    def _free(self, key: bytes) -> list[Comparison]:
        """The conditions under which a new file may be made."""
        return [self._nothing_below(key), *self._files_above(key)]

    async def _look(self, key: bytes) -> Found:
        above = ancestors(key)
        done = await self._client.txn(
            then=[
                Get(key),
                Get(below(key), prefix=True, limit=1),
                *(Get(each) for each in above),
            ]
        )
        file_above = next((each for at, each in enumerate(above, 2) if _kvs(done, at)), None)
        kvs = _kvs(done, 0)
        return Found(kvs[0] if kvs else None, len(_kvs(done, 1)), file_above, done.header.revision)

    async def _explain_occupied(self, key: bytes) -> None:
        found = await self._look(key)
        if found.file_above is not None:
            raise V2Error(NOT_A_DIRECTORY, shown(found.file_above), found.index)
        raise V2Error(NOT_A_FILE, shown(key), found.index)

    async def _explain_missing(self, key: bytes) -> None:
        found = await self._look(key)
        error = NOT_A_FILE if found.children else KEY_NOT_FOUND
        raise V2Error(error, shown(key), found.index)


def _expected(key: bytes, data: bytes | None, index: int) -> list[Comparison]:
    conditions = []
    if data is not None:
        conditions.append(value(key) == data)
    if index:
        conditions.append(mod_revision(key) == index)
    return conditions


def _kvs(done: TxnResult, at: int = 0) -> tuple[KeyValue, ...]:
    response = done.responses[at]
    return response.kvs if isinstance(response, RangeResult) else ()


def _nested_succeeded(done: TxnResult) -> bool:
    from kvstore.client import TxnResult

    inner = done.responses[0]
    return isinstance(inner, TxnResult) and inner.succeeded
