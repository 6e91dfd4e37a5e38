"""Transactions over several keys: appends to lists, a bank, and a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chaos.checkers.assumptions import LoadFloor
from chaos.checkers.bank import check_bank
from chaos.checkers.durability import check_convergence
from chaos.checkers.listappend import check_list_append
from chaos.checkers.replay import check_replay
from chaos.checkers.sets import check_set
from chaos.history.format import Operation
from chaos.workloads.base import Check, NotApplied, Setting, WorkloadOptions
from chaos.workloads.kv import KvProcess, KvWorkload
from kvstore.client import AsyncClient, Get, Put, RangeResult, TxnResult, mod_revision

LIST_LENGTH_MAX: Final = 40
"""A list that has so many elements is left, and another taken, so that reads stay short."""

STEPS_MAX: Final = 3
"""Lists that one transaction touches."""

ACCOUNTS: Final = 5
BALANCE: Final = 100
"""What each account has at the beginning."""


class AppendWorkload(KvWorkload):
    """Transactions that append to lists and read them.

    A list is one value, its elements separated by commas. A transaction reads what it touches, and
    writes if nothing of it has changed meanwhile; it is aborted if something has.
    """

    name = "append"
    defaults = WorkloadOptions(keys=4)
    floor = LoadFloor(ok_per_s=5.0)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._open = list(range(setting.options.keys))
        self._lengths = dict.fromkeys(self._open, 0)

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_list_append, check_replay, check_convergence)

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``."""
        count = process.rng.randint(1, min(STEPS_MAX, len(self._open)))
        steps: list[list[Any]] = []
        for number in process.rng.sample(self._open, count):
            if process.rng.random() < 0.5:
                steps.append(["append", f"append/{number}", process.unique()])
                self._lengthen(number)
            else:
                steps.append(["r", f"append/{number}", None])
        await self._transact(process, steps)

    async def final_read(self, process: KvProcess) -> None:
        """See ``Workload``."""
        for number in self._lengths:
            await self._transact(process, [["r", f"append/{number}", None]])

    def _lengthen(self, number: int) -> None:
        self._lengths[number] += 1
        if self._lengths[number] >= LIST_LENGTH_MAX and number in self._open:
            self._open.remove(number)
            self._open.append(len(self._lengths))
            self._lengths[self._open[-1]] = 0

    async def _transact(self, process: KvProcess, steps: list[list[Any]]) -> None:
        keys = [key for _, key, _ in steps]
        writes = any(f == "append" for f, _, _ in steps)

        async def send(operation: Operation) -> None:
            read = await process.client.txn(then=[Get(key) for key in keys])
            lists, modified = _lists(keys, read)
            operation.revision = read.header.revision
            if writes:
                done = await process.client.txn(
                    when=[mod_revision(key) == modified[key] for key in keys],
                    then=[
                        Put(key, ",".join([*lists[key], element]))
                        for f, key, element in steps
                        if f == "append"
                    ],
                )
                if not done.succeeded:
                    raise NotApplied("something had changed meanwhile")
                operation.revision = done.header.revision
            operation.output = [
                [f, key, lists[key] if f == "r" else element] for f, key, element in steps
            ]

        await process.attempt("txn" if writes else "read", "", send, input=steps)


def _lists(keys: Sequence[str], result: TxnResult) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Each list's elements, and the revision at which it was changed last."""
    lists: dict[str, list[str]] = {}
    modified: dict[str, int] = {}
    for key, found in zip(keys, result.responses, strict=True):
        kvs = found.kvs if isinstance(found, RangeResult) else ()
        lists[key] = kvs[0].value.decode().split(",") if kvs else []
        modified[key] = kvs[0].mod_revision if kvs else 0
    return lists, modified


class BankWorkload(KvWorkload):
    """Transfers between a few accounts, and reads of all of them."""

    name = "bank"
    floor = LoadFloor(ok_per_s=5.0)

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_bank, check_replay, check_convergence)

    @classmethod
    async def prepare(cls, direct: Mapping[str, str]) -> dict[str, Any]:
        """See ``KvWorkload``; the header also says the accounts and their total."""
        return {**await super().prepare(direct), "bank": cls.terms()}

    @classmethod
    def terms(cls) -> dict[str, Any]:
        """The accounts and their total, as the checker wants them in the header."""
        accounts = [f"bank/{number}" for number in range(ACCOUNTS)]
        return {"accounts": accounts, "total": ACCOUNTS * BALANCE}

    async def setup(self) -> None:
        """Open the accounts."""
        await super().setup()
        async with AsyncClient([*self.setting.direct.values()]) as client:
            await client.txn(
                then=[Put(f"bank/{number}", str(BALANCE)) for number in range(ACCOUNTS)]
            )

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``."""
        if process.rng.random() < 0.4:
            await self.final_read(process)
            return
        numbers = process.rng.sample(range(ACCOUNTS), 2)
        source, target = (f"bank/{number}" for number in numbers)
        amount = process.rng.randint(1, BALANCE // 4)

        async def send(operation: Operation) -> None:
            read = await process.client.txn(then=[Get(source), Get(target)])
            kvs = [found.kvs[0] for found in read.responses if isinstance(found, RangeResult)]
            has, gets = (int(kv.value) for kv in kvs)
            if has < amount:
                raise NotApplied(f"{source} has only {has}")
            done = await process.client.txn(
                when=[mod_revision(kv.key) == kv.mod_revision for kv in kvs],
                then=[Put(source, str(has - amount)), Put(target, str(gets + amount))],
            )
            if not done.succeeded:
                raise NotApplied("a balance had changed meanwhile")
            operation.revision = done.header.revision

        asked = {"from": source, "to": target, "amount": amount}
        await process.attempt("transfer", "", send, input=asked)

    async def final_read(self, process: KvProcess) -> None:
        """Read every account at once."""

        async def send(operation: Operation) -> None:
            found = await process.client.range("bank/", prefix=True)
            operation.revision = found.header.revision
            operation.output = {kv.key.decode(): int(kv.value) for kv in found.kvs}

        await process.attempt("read", "", send)


class SetWorkload(KvWorkload):
    """Unique elements, each a key of its own, and now and then a read of all."""

    name = "set"
    defaults = WorkloadOptions(rate=150.0)
    floor = LoadFloor(ok_per_s=5.0, reads=3)

    @classmethod
    def checks(cls) -> Sequence[Check]:
        """See ``Workload``."""
        return (check_set, check_replay, check_convergence)

    async def step(self, process: KvProcess) -> None:
        """See ``Workload``."""
        if process.rng.random() < 0.07:
            await self.final_read(process)
            return
        element = process.unique()

        async def send(operation: Operation) -> None:
            operation.revision = (await process.client.put(f"set/{element}")).header.revision

        await process.attempt("add", "", send, input=element)

    async def final_read(self, process: KvProcess) -> None:
        """Read every element."""

        async def send(operation: Operation) -> None:
            found = await process.client.range("set/", prefix=True, keys_only=True)
            operation.revision = found.header.revision
            operation.output = [kv.key.decode().removeprefix("set/") for kv in found.kvs]

        await process.attempt("read", "", send)
