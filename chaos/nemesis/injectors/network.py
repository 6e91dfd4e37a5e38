"""Faults of links: cuts of every shape, and toxics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from chaos.cluster.links import LinkState, client_link, peer_link, peer_links, states_of
from chaos.nemesis.injectors.base import Injector
from chaos.nemesis.shapes import flows_of

DIAL_TIMEOUT_S: Final = 1.0


class LinkInjector(Injector):
    """What faults of links share: which links, and what shows an effect."""

    @property
    def peer_links_of_victims(self) -> list[str]:
        """Links between members of which at least one end is struck."""
        return [
            peer_link(source, target)
            for source, target in peer_links(self.cluster.members)
            if source in self.victims or target in self.victims
        ]

    async def refused(self, links: Iterable[str]) -> str:
        """Evidence that one of these links refuses connections, or ""."""
        for link in links:
            host, _, port = self.cluster.link_addresses[link].rpartition(":")
            try:
                _, writer = await asyncio.wait_for(
                    asyncio.open_connection(host, int(port)), DIAL_TIMEOUT_S
                )
            except ConnectionRefusedError:
                return f"connections on {link} are refused"
            except (OSError, TimeoutError):
                continue
            writer.close()
        return ""

    async def counted(self, names: frozenset[str], links: Iterable[str], what: str) -> str:
        """Evidence that toxid counted effects by these names on these links, or ""."""
        effects = await asyncio.to_thread(self.cluster.proxies.effects)
        for link in links:
            times = sum(effects.get(link, {}).get(name, 0) for name in names)
            times -= self._before.get(link, 0)
            if times > 0:
                return f"{what} {times} times on {link}"
        return ""

    async def count_from_here(self, names: frozenset[str]) -> None:
        """Let ``counted`` begin at nought."""
        effects = await asyncio.to_thread(self.cluster.proxies.effects)
        self._before = {
            link: sum(counts.get(name, 0) for name in names) for link, counts in effects.items()
        }

    _before: dict[str, int] = {}  # noqa: RUF012 - replaced, never changed


CUT: Final = frozenset({"cut"})


class Partition(LinkInjector):
    """net.partition, of every shape."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._states = self._wanted()
        if self.cluster.is_toxid:
            await self.count_from_here(CUT)
        await self.cluster.cut(self._states, self)

    async def evidence(self) -> str:
        """The smaller side stops to serve; other shapes are seen on their links."""
        shape, direction = self.option("shape", str), self.option("direction", str)
        if shape == "isolate" and direction == "both":
            smaller = min(self.victims, self.others, key=len)
            member = await self.not_serving(smaller or self.victims)
            return f"{member} did not serve a linearizable read" if member else ""
        closed = [link for link, state in self._states.items() if state is LinkState.CLOSED]
        if closed:
            return await self.refused(closed)
        return await self.counted(CUT, self._states, "bytes were held back")

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.cluster.heal(self)

    def _wanted(self) -> dict[str, LinkState]:
        mode, shape = self.option("mode", str), self.option("shape", str)
        if shape == "clients":
            state = LinkState.CLOSED if mode == "close" else LinkState.STALLED
            return {client_link(member): state for member in self.victims}
        flows = flows_of(self.fault, self.victims, self.cluster.members, self.rng)
        return states_of(flows, mode)


class Stall(LinkInjector):
    """net.stall: jam, then burst."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._links = self.peer_links_of_victims
        await self.count_from_here(CUT)
        await self.cluster.cut(dict.fromkeys(self._links, LinkState.STALLED), self)

    async def evidence(self) -> str:
        """See ``Injector``."""
        return await self.counted(CUT, self._links, "bytes were held back")

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.cluster.heal(self)


class Flap(LinkInjector):
    """net.flap: links go and come."""

    async def strike(self) -> None:
        """See ``Injector``."""
        self._links = self.peer_links_of_victims
        self._seen = ""
        self._times = 0
        self.begin_loop(self._flap())

    async def _flap(self) -> None:
        every_s = float(self.option("every_s", float))
        going_on = True
        while going_on:
            await self.cluster.cut(dict.fromkeys(self._links, LinkState.CLOSED), self)
            self._seen = await self.refused(self._links) or self._seen
            await self.rest(every_s)
            await self.cluster.heal(self)
            self._times += 1
            going_on = await self.rest(every_s)

    async def evidence(self) -> str:
        """See ``Injector``."""
        if self._times < 2 or not self._seen:
            return ""
        return f"{self._seen}, and again, {self._times} times"

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.end_loop()
        await self.cluster.heal(self)


class Toxic(LinkInjector):
    """Every fault that is one toxic in both directions of some links."""

    async def strike(self) -> None:
        """See ``Injector``."""
        where = self.option("links", str)
        self._links = self.peer_links_of_victims if where in ("peers", "all") else []
        if where in ("clients", "all"):
            self._links = [*self._links, *(client_link(member) for member in self.victims)]
        kind, attributes = self._toxic()
        name = f"{self.fault.kind}-{id(self):x}"
        self._names = frozenset({f"{name}_upstream", f"{name}_downstream"})
        proxies = self.cluster.proxies
        await asyncio.gather(
            *(
                asyncio.to_thread(
                    proxies.add_toxic, link, kind, attributes, stream, 1.0, f"{name}_{stream}"
                )
                for link in self._links
                for stream in ("upstream", "downstream")
            )
        )
        if kind == "frames":  # it needs its connections from their first byte on
            await self.cluster.cut(dict.fromkeys(self._links, LinkState.CLOSED), self)
            await self.cluster.heal(self)

    async def evidence(self) -> str:
        """See ``Injector``."""
        if self.fault.kind == "net.latency":
            slow_s = (self.option("delay_ms", int) - self.option("jitter_ms", int)) / 1000
            return await self.slow_read(max(slow_s, 0.001))
        return await self.counted(self._names, self._links, f"{self.fault.kind} struck")

    async def mend(self) -> None:
        """See ``Injector``."""
        await asyncio.gather(
            *(
                asyncio.to_thread(self.cluster.proxies.remove_toxic, link, name)
                for link in self._links
                for name in self._names
            )
        )

    def _toxic(self) -> tuple[str, dict[str, float]]:
        """The toxic's type and attributes (``chaos.toxid``)."""
        options = {
            name: value for name, value in self.fault.options.items() if not isinstance(value, str)
        }
        match self.fault.kind:
            case "net.latency":
                half = {name: int(value) // 2 for name, value in options.items()}
                return "latency", {"latency": half["delay_ms"], "jitter": half["jitter_ms"]}
            case "net.bandwidth":
                return "bandwidth", {"rate": options["rate_kb"]}
            case "net.slicer":
                return "slicer", {"average_size": options["size"], "delay": options["delay_us"]}
            case "net.limit":
                return "limit_data", {"bytes": options["bytes"]}
            case "net.reset":
                return "reset_peer", {"timeout": options["after_ms"]}
            case "net.swallow":
                return "timeout", {"timeout": 0}
            case "net.loss":
                return "retransmit", {"loss_rate": options["rate"], "delay": options["resend_ms"]}
            case "net.corrupt":
                return "corrupt", {"rate": options["rate"]}
            case "net.drop":
                return "frames", {"drop": options["rate"]}
            case kind:
                effect = kind.removeprefix("net.")
                return "frames", {effect: options["rate"], "late": options["late"]}
