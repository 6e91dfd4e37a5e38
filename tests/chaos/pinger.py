"""A small member of a cluster that shows what faults do to it: pings, records, a clock.

    python pinger.py NAME PEER_ADDRESS CLIENT_ADDRESS DATA_DIRECTORY HELLOS DIALS

It pings every other member each 40 ms on a connection of its own, in the native engine's frames,
and counts what it hears from each: delays, gaps, repeats, late frames, damaged frames, connections.
It serves while it hears a majority. It appends a record to two files at each ping; one of them it
syncs. A client that connects is told all of it as one line of JSON.

It imports nothing of the product unless a failpoint is armed or its clock is asked for, so that it
starts fast.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import google_crc32c

PING_S = 0.04
FRESH_S = 0.5
FRAME = struct.Struct("<II")
RECORD = struct.Struct("<QI")
PADDING = bytes(1000)
EXIT_IO_ERROR, EXIT_DAMAGED = 3, 4


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def frame(number: int) -> bytes:
    """An ``Envelope`` of this term; what is beyond it stands in a field that no version knows."""
    rest = struct.pack("<Qd", number, time.monotonic()) + PADDING
    payload = b"\x08" + varint(number) + varint(1000 << 3 | 2) + varint(len(rest)) + rest
    return FRAME.pack(len(payload), google_crc32c.value(payload)) + payload


class Heard:
    """What came from one other member."""

    def __init__(self) -> None:
        self.at = float("-inf")
        self.counts = dict.fromkeys(
            ("received", "gaps", "repeats", "late", "damaged", "connections"), 0
        )
        self.delay_s = 0.0
        self.seen: set[int] = set()

    def connected(self) -> None:
        self.counts["connections"] += 1
        self.seen = set()

    def take(self, payload: bytes) -> None:
        number, sent = struct.unpack_from("<Qd", payload, len(payload) - len(PADDING) - 16)
        self.at = time.monotonic()
        self.delay_s = self.at - sent
        self.counts["received"] += 1
        if number in self.seen:
            self.counts["repeats"] += 1
        elif self.seen and number < max(self.seen):
            self.counts["late"] += 1
        elif self.seen:
            self.counts["gaps"] += number - max(self.seen) - 1
        self.seen.add(number)

    def as_json(self) -> dict[str, Any]:
        return {**self.counts, "age_s": time.monotonic() - self.at, "delay_s": self.delay_s}


class Records:
    """Records in a file, one after the other; a damaged one ends the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT)
        data = os.read(self.handle, 1 << 24)
        whole = len(data) // RECORD.size
        for number in range(whole):
            found, checksum = RECORD.unpack_from(data, number * RECORD.size)
            if (found, checksum) != (number, google_crc32c.value(str(number).encode())):
                print(f"record {number} of {path.name} is damaged", flush=True)
                os._exit(EXIT_DAMAGED)
        self.found = self.count = whole

    def append(self) -> None:
        checksum = google_crc32c.value(str(self.count).encode())
        os.pwrite(self.handle, RECORD.pack(self.count, checksum), self.count * RECORD.size)
        self.count += 1


class Pinger:
    def __init__(self, name: str, data: Path, hellos: dict[str, bytes]) -> None:
        self.name, self.hellos = name, hellos
        self.heard = {peer: Heard() for peer in hellos if peer != name}
        self.writers: dict[str, asyncio.StreamWriter] = {}
        self.synced = Records(data / "wal" / "synced")
        self.unsynced = Records(data / "unsynced")
        directory = os.open(data / "wal", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        self.hit: Any = lambda point: None
        self.clock: Any = None
        if "RAFTYARD_FAILPOINTS" in os.environ:
            from consensus import failpoints

            failpoints.arm_from_environment()
            self.hit = failpoints.hit

    async def run(self, peer: str, client: str, dials: dict[str, str]) -> None:
        for address, handle in ((peer, self.listen), (client, self.tell)):
            host, _, port = address.rpartition(":")
            await asyncio.start_server(handle, host, int(port))
        dialling = [asyncio.create_task(self.dial(*peer)) for peer in dials.items()]
        number = 0
        while dialling:
            number += 1
            self.persist()
            self.hit("send.before")
            for writer in self.writers.values():
                writer.write(frame(number))
            await asyncio.sleep(PING_S)

    def persist(self) -> None:
        try:
            self.synced.append()
            self.hit("wal.before_sync")
            os.fsync(self.synced.handle)
            self.unsynced.append()
        except OSError as error:
            print(f"stopped: {error}", flush=True)
            os._exit(EXIT_IO_ERROR)

    async def dial(self, other: str, address: str) -> None:
        host, _, port = address.rpartition(":")
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(self.hellos[self.name])
                self.writers[other] = writer
                await reader.read()
            except OSError:
                pass
            self.writers.pop(other, None)
            await asyncio.sleep(PING_S)

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender: Heard | None = None
        try:
            while True:
                prefix = await reader.readexactly(FRAME.size)
                length, checksum = FRAME.unpack(prefix)
                payload = await reader.readexactly(length) if length < 1 << 20 else b""
                if sender is None:
                    names = [n for n, hello in self.hellos.items() if hello == prefix + payload]
                    sender = self.heard[names[0]]
                    sender.connected()
                elif google_crc32c.value(payload) != checksum:
                    sender.counts["damaged"] += 1
                    return
                else:
                    sender.take(payload)
        except (OSError, EOFError, IndexError):
            return
        finally:
            writer.close()

    async def tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hears = {peer: heard.as_json() for peer, heard in self.heard.items()}
        fresh = [self.name, *(peer for peer, one in hears.items() if one["age_s"] < FRESH_S)]
        answer = {
            "name": self.name,
            "serves": len(fresh) > len(self.hellos) // 2,
            "leader": min(fresh),
            "hears": hears,
            "pid": os.getpid(),
            "found": {"synced": self.synced.found, "unsynced": self.unsynced.found},
            "count": {"synced": self.synced.count, "unsynced": self.unsynced.count},
            "clock_ms": self.now_ms(),
        }
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    def now_ms(self) -> int:
        if "RAFTYARD_CLOCK_FILE" not in os.environ:
            return 0
        if self.clock is None:
            from consensus.clock import SystemClock

            self.clock = SystemClock()
        return int(self.clock.now_ms())


def pairs(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split(","))


if __name__ == "__main__":
    name, peer, client, data, hellos, dials = sys.argv[1:]
    known = {member: bytes.fromhex(text) for member, text in pairs(hellos).items()}
    asyncio.run(Pinger(name, Path(data), known).run(peer, client, pairs(dials)))
