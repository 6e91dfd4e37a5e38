"""Service registration and discovery: which instances of a service are alive, and where.

An instance registers with a time to live and sends heartbeats; when they stop it is gone from the
answers, so that nobody has to clean up after a crash.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from consensus import Refused, command, query
from statemachines.checks import check_text, check_ttl_ms, check_value
from statemachines.timed import Key, TimedMachine

INSTANCES_MAX: Final = 10_000
"""Instances in one registry, over all services."""

METADATA_BYTES_MAX: Final = 4096
"""What an instance may say about itself, in bytes of JSON."""


@attrs.frozen(slots=True)
class Instance:
    """One running instance, and when it was registered (the registry's version then)."""

    address: str
    metadata: str
    version: int
    ttl_ms: int
    expires_ms: int


class ServiceRegistry(TimedMachine):
    """A registry of services with heartbeats.

    ::

        async with Node(ServiceRegistry(), engine) as node:
            registry = Handle(node, ServiceRegistry)
            await registry.register(
                service="web", instance="web-1", address="10.0.0.1:80", ttl_ms=10_000
            )
            await registry.heartbeat(service="web", instance="web-1")  # well within ttl_ms
            found = await registry.discover(service="web")

    Guarantees: linearizable; all members drop a silent instance at the same entry. ``version``
    grows with each change of any instance, and heartbeats are none: a reader that sees the same
    version sees the same instances. An instance can be listed up to ``ttl_ms`` after it died:
    connect and be ready to try the next.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Become as new."""
        super().reset()
        self._services: dict[str, dict[str, Instance]] = {}
        self._version = 0

    @command
    def register(
        self, service: str, instance: str, address: str, ttl_ms: int, metadata: Any = None
    ) -> dict[str, int]:
        """Add an instance, or replace what it said before.

        Returns:
            the registry's ``version``, and ``expires_ms`` unless a heartbeat comes.
        """
        check_text("service", service)
        check_text("instance", instance)
        check_text("address", address)
        check_ttl_ms("ttl_ms", ttl_ms)
        text = check_value("metadata", metadata, METADATA_BYTES_MAX)
        if instance not in self._services.get(service, {}) and len(self.deadlines) >= INSTANCES_MAX:
            raise Refused(f"{INSTANCES_MAX} instances are registered; deregister some first")
        self._version += 1
        expires_ms = self.entry.clock_ms + ttl_ms
        self._set(service, instance, Instance(address, text, self._version, ttl_ms, expires_ms))
        return {"version": self._version, "expires_ms": expires_ms}

    @command
    def heartbeat(self, service: str, instance: str) -> dict[str, int]:
        """Stay listed for another ``ttl_ms``; returns ``expires_ms``.

        Refused when the instance is not registered (any more): it must register again.
        """
        record = self._services.get(check_text("service", service), {}).get(
            check_text("instance", instance)
        )
        if record is None:
            raise Refused(f"{instance!r} of {service!r} is not registered; register it again")
        expires_ms = self.entry.clock_ms + record.ttl_ms
        self._set(service, instance, attrs.evolve(record, expires_ms=expires_ms))
        return {"expires_ms": expires_ms}

    @command
    def deregister(self, service: str, instance: str) -> dict[str, Any]:
        """Remove an instance that stops; returns ``removed`` and the registry's ``version``."""
        check_text("service", service)
        check_text("instance", instance)
        removed = instance in self._services.get(service, {})
        if removed:
            self.deadlines.cancel((service, instance))
            self._remove(service, instance)
        return {"removed": removed, "version": self._version}

    @query
    def discover(self, service: str) -> dict[str, Any]:
        """Return the ``instances`` of a service by name, and the registry's ``version``."""
        check_text("service", service)
        return {
            "instances": [
                {
                    "instance": name,
                    "address": record.address,
                    "metadata": json.loads(record.metadata),
                    "version": record.version,
                }
                for name, record in sorted(self._services.get(service, {}).items())
            ],
            "version": self._version,
        }

    @query
    def services(self) -> dict[str, Any]:
        """Return the ``services`` with their numbers of instances, and the ``version``."""
        counts = {name: len(instances) for name, instances in sorted(self._services.items())}
        return {"services": counts, "version": self._version}

    def lapse(self, key: Key, now_ms: int) -> None:
        """An instance's heartbeats stopped."""
        self._remove(*key)

    def dump_rows(self) -> list[Any]:
        """The version, then each instance by service and name."""
        return [
            self._version,
            *[
                [service, name, record]
                for service, instances in sorted(self._services.items())
                for name, record in sorted(instances.items())
            ],
        ]

    def load_rows(self, rows: list[Any]) -> None:
        """Take the rows."""
        self.reset()
        self._version = rows[0]
        for service, name, fields in rows[1:]:
            self._set(service, name, Instance(*fields))

    def _set(self, service: str, instance: str, record: Instance) -> None:
        self._services.setdefault(service, {})[instance] = record
        self.deadlines.set((service, instance), record.expires_ms)

    def _remove(self, service: str, instance: str) -> None:
        self._version += 1
        del self._services[service][instance]
        if not self._services[service]:
            del self._services[service]
