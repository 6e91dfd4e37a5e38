"""The service registry against an obvious model."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import statemachines.registry
from statemachines import ServiceRegistry
from tests.statemachines.driver import STATEFUL, Driver, MachineRules, refused

SERVICES = st.sampled_from(["web", "db"])
INSTANCES = st.sampled_from(["1", "2", "3"])


class RegistryRules(MachineRules):
    machine = ServiceRegistry

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[tuple[str, str], tuple[str, int, int]] = {}
        self.version = 0

    def expire(self) -> None:
        before = len(self.model)
        self.model = {key: row for key, row in self.model.items() if row[2] > self.now_ms}
        self.version += before - len(self.model)

    @rule(service=SERVICES, instance=INSTANCES, ttl_ms=st.integers(1, 20))
    def register(self, service: str, instance: str, ttl_ms: int) -> None:
        self.expire()
        self.version += 1
        address = f"{service}-{instance}:{self.version}"
        self.model[service, instance] = (address, ttl_ms, self.now_ms + ttl_ms)
        answer = self.do(
            "register", service=service, instance=instance, address=address, ttl_ms=ttl_ms
        )
        assert answer == {"version": self.version, "expires_ms": self.now_ms + ttl_ms}

    @rule(service=SERVICES, instance=INSTANCES)
    def heartbeat(self, service: str, instance: str) -> None:
        self.expire()
        answer = self.do("heartbeat", service=service, instance=instance)
        row = self.model.get((service, instance))
        if row is None:
            assert "register it again" in answer["refused"]
        else:
            self.model[service, instance] = (row[0], row[1], self.now_ms + row[1])
            assert answer == {"expires_ms": self.now_ms + row[1]}

    @rule(service=SERVICES, instance=INSTANCES)
    def deregister(self, service: str, instance: str) -> None:
        self.expire()
        removed = self.model.pop((service, instance), None) is not None
        self.version += removed
        answer = self.do("deregister", service=service, instance=instance)
        assert answer == {"removed": removed, "version": self.version}

    @rule(service=SERVICES)
    def discover(self, service: str) -> None:
        self.do("tick")
        self.expire()
        found = self.ask("discover", service=service)
        assert found["version"] == self.version
        assert [(row["instance"], row["address"]) for row in found["instances"]] == [
            (name, row[0]) for (of, name), row in sorted(self.model.items()) if of == service
        ]
        counts = self.ask("services")["services"]
        assert counts.get(service, 0) == len(found["instances"])


TestRegistry = RegistryRules.TestCase
TestRegistry.settings = STATEFUL


def test_metadata_is_kept_and_bounded() -> None:
    driver = Driver(ServiceRegistry)
    row = {"service": "web", "instance": "1", "address": "h:80", "ttl_ms": 10}
    driver.do("register", **row, metadata={"zone": "a"})
    found = driver.ask("discover", service="web")["instances"]
    assert found == [{"instance": "1", "address": "h:80", "metadata": {"zone": "a"}, "version": 1}]
    assert "metadata" in driver.do("register", **row, metadata="x" * 5000)["refused"]


def test_a_full_registry_refuses_new_instances_but_not_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statemachines.registry, "INSTANCES_MAX", 1)
    driver = Driver(ServiceRegistry)
    row = {"service": "web", "address": "h:80", "ttl_ms": 10}
    assert not refused(driver.do("register", instance="1", **row))
    assert refused(driver.do("register", instance="2", **row))
    assert not refused(driver.do("register", instance="1", **row))
