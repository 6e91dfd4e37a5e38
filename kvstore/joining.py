"""Who this member is: by its settings, by its data directory, or by the cluster that it joins.

A member that the cluster began with computes its IDs from the settings. One that was added later
cannot: its ID was drawn when it was added. At its first start, with ``--initial-cluster-state
existing``, it asks the members that its settings name who is in the cluster, checks that these are
the ones that ``--initial-cluster`` names (as etcd does), and finds itself by its peer URLs. From
then on its data directory tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from consensus.errors import ConfigError
from consensus.tls import client_context
from consensus.transport.tcp import ask_members
from consensus.types import Member
from kvstore.config import ServerConfig
from kvstore.datadir import Owner, owner_of
from kvstore.engines import CHANGES_MEMBERS
from kvstore.identity import Founder, Identity, id_of, identify
from kvstore.members import decode_context

log = structlog.get_logger(__name__)

JOIN_TIMEOUT_S: Final = 10.0
"""How long the members may take to agree with the settings: they learn of a new one one by one."""

ASK_TIMEOUT_S: Final = 2.0
RETRY_S: Final = 0.2


async def identity_for(config: ServerConfig) -> Identity:
    """Return who the member with these settings is.

    Raises:
        ConfigError: it is to join a cluster that cannot be asked, or is not the one it names.
    """
    computed = identify(config.initial_cluster, config.name, config.cluster_token)
    owner = owner_of(config.data_dir)
    if owner is None:
        if config.joins and config.engine in CHANGES_MEMBERS:
            return await _joined(config)
        return computed
    if owner.name == config.name and (owner.joined or config.joins):
        return _as_before(config, computed, owner)
    return computed


def _as_before(config: ServerConfig, computed: Identity, owner: Owner) -> Identity:
    """Return the identity in a data directory; of a running cluster the settings tell no IDs."""
    founders = computed.founders
    if owner.member_id not in founders:
        own = computed.founders[computed.member_id]
        founders = {owner.member_id: Founder(owner.member_id, own.name, own.peer_urls, own.address)}
    return Identity(owner.cluster_id, owner.member_id, config.name, founders, owner.joined)


async def _joined(config: ServerConfig) -> Identity:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + JOIN_TIMEOUT_S
    addresses = [
        url.address
        for name, urls in config.initial_cluster.items()
        if name != config.name
        for url in urls
    ]
    if not addresses:
        raise ConfigError(
            "--initial-cluster-state existing: --initial-cluster must name the running members too"
        )
    tls = None if config.peer_tls.empty else client_context(config.peer_tls)
    while True:
        problems = []
        for address in addresses:
            try:
                members = await ask_members(address, config.cluster_token, ASK_TIMEOUT_S, tls)
                return _found(config, members)
            except (OSError, ConfigError) as error:
                problems.append(f"{address}: {error}")
        if loop.time() > deadline:
            raise ConfigError(
                "--initial-cluster-state existing: cannot join the cluster that --initial-cluster "
                f"names: {'; '.join(problems)}"
            )
        log.info("waiting for the cluster that this member joins", problems=problems)
        await asyncio.sleep(RETRY_S)


def _found(config: ServerConfig, members: Sequence[Member]) -> Identity:
    """Check the settings against the cluster's members, and find this one among them.

    Raises:
        ConfigError: they are not the same; the text says how.
    """
    ours = {
        frozenset(url.text for url in urls): name for name, urls in config.initial_cluster.items()
    }
    if len(members) != len(ours):
        raise ConfigError(
            f"member count is unequal: the cluster has {len(members)} members and "
            f"--initial-cluster names {len(ours)}. Is this one added (kvctl member add)?"
        )
    founders: dict[int, Founder] = {}
    cluster = own = 0
    for member in members:
        if not member.context:
            raise ConfigError("the cluster is of a release whose members cannot be joined")
        cluster, urls = decode_context(member.context)
        name = ours.get(frozenset(urls))
        if name is None:
            raise ConfigError(
                f"unmatched member while checking PeerURLs: {','.join(urls)} is a member, and "
                "--initial-cluster does not name it"
            )
        id = id_of(member.id)
        founders[id] = Founder(id, name, urls, member.address)
        if name == config.name:
            own = id
    return Identity(cluster, own, config.name, founders, joined=True)
