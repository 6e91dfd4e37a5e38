"""The Cluster service: who the members are, and changing that while the cluster runs.

The checks that need the whole group (is a majority left, has a learner caught up, is an ID or an
address free) are the leader's: its engine refuses by name, and ``REFUSALS`` says what etcd calls
each. Here is only what a request alone can tell.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from consensus.errors import (
    AddressTaken,
    ChangeRefused,
    ConfigError,
    GroupUnhealthy,
    LearnerNotReady,
    MemberExists,
    MemberWasRemoved,
    NotEnoughStarted,
    NotLearner,
    Removed,
    TooManyLearners,
    UnknownMember,
)
from consensus.types import (
    AddMember,
    Consistency,
    MemberChange,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)
from kvstore.errors import (
    CAN_ONLY_PROMOTE_A_LEARNER_MEMBER,
    CAN_ONLY_PROMOTE_A_LEARNER_MEMBER_WHICH_IS_IN_SYNC_WITH_LEADER,
    GIVEN_MEMBER_URLS_ARE_INVALID,
    MEMBER_NOT_FOUND,
    PEER_URLS_ALREADY_EXISTS,
    RE_CONFIGURATION_FAILED_DUE_TO_NOT_ENOUGH_STARTED_MEMBERS,
    TOO_MANY_LEARNER_MEMBERS_IN_CLUSTER,
    UNHEALTHY_CLUSTER,
    Code,
    EtcdError,
    Status,
)
from kvstore.identity import member_id, node_of
from kvstore.members import MemberInfo, encode_context
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.context import ServerContext
from kvstore.rpc.registry import Call, Kind, Method
from kvstore.urls import Url, parse_urls

SERVICE: Final = "etcdserverpb.Cluster"

ResponseT = TypeVar(
    "ResponseT",
    pb.MemberListResponse,
    pb.MemberAddResponse,
    pb.MemberRemoveResponse,
    pb.MemberUpdateResponse,
    pb.MemberPromoteResponse,
)

REFUSALS: Final[tuple[tuple[type[ChangeRefused], Status], ...]] = (
    (AddressTaken, PEER_URLS_ALREADY_EXISTS),
    (UnknownMember, MEMBER_NOT_FOUND),
    (NotLearner, CAN_ONLY_PROMOTE_A_LEARNER_MEMBER),
    (LearnerNotReady, CAN_ONLY_PROMOTE_A_LEARNER_MEMBER_WHICH_IS_IN_SYNC_WITH_LEADER),
    (TooManyLearners, TOO_MANY_LEARNER_MEMBERS_IN_CLUSTER),
    (NotEnoughStarted, RE_CONFIGURATION_FAILED_DUE_TO_NOT_ENOUGH_STARTED_MEMBERS),
    (GroupUnhealthy, UNHEALTHY_CLUSTER),
)


class ClusterService:
    """Cluster on one member."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""

        def unary(name: str, request: Any, response: Any, handler: Any) -> Method:
            return Method(SERVICE, name, request, response, Kind.UNARY, handler)

        return [
            unary("MemberList", pb.MemberListRequest, pb.MemberListResponse, self.member_list),
            unary("MemberAdd", pb.MemberAddRequest, pb.MemberAddResponse, self.member_add),
            unary(
                "MemberRemove", pb.MemberRemoveRequest, pb.MemberRemoveResponse, self.member_remove
            ),
            unary(
                "MemberUpdate", pb.MemberUpdateRequest, pb.MemberUpdateResponse, self.member_update
            ),
            unary(
                "MemberPromote",
                pb.MemberPromoteRequest,
                pb.MemberPromoteResponse,
                self.member_promote,
            ),
        ]

    async def member_list(self, request: pb.MemberListRequest, _: Call) -> pb.MemberListResponse:
        """List the members; one that has not started yet has neither name nor client URLs."""
        await self._context.settle(
            Consistency.LINEARIZABLE if request.linearizable else Consistency.SERIALIZABLE
        )
        return self._with_members(pb.MemberListResponse())

    async def member_add(self, request: pb.MemberAddRequest, _: Call) -> pb.MemberAddResponse:
        """Make a place for a new member, which is started afterwards to take it."""
        urls = self._urls(request.peerURLs)
        texts = sorted(url.text for url in urls)
        context = self._encode(texts)
        for added_s in count(int(time.time())):
            # etcd's formula for a member that joins: no cluster token, but the time.
            id = member_id(texts, "", added_s)
            try:
                await self._make(
                    AddMember(node_of(id), urls[0].address, request.isLearner, context)
                )
                break
            except (MemberExists, MemberWasRemoved):
                # These URLs were added within this second before. etcd says "member not found";
                # here the member counts as added in the next second whose ID is free.
                continue
            except ChangeRefused as error:
                raise as_etcd_error(error) from error
        response = self._with_members(pb.MemberAddResponse())
        response.member.CopyFrom(
            as_message(MemberInfo(id, "", tuple(texts), (), request.isLearner))
        )
        return response

    async def member_remove(
        self, request: pb.MemberRemoveRequest, _: Call
    ) -> pb.MemberRemoveResponse:
        """Take a member out for good, also the one that is asked."""
        members = self._context.members()
        try:
            await self._change(RemoveMember(node_of(request.ID)))
        except Removed:
            members.pop(request.ID, None)
            return self._with_members(pb.MemberRemoveResponse(), members)
        return self._with_members(pb.MemberRemoveResponse())

    async def member_update(
        self, request: pb.MemberUpdateRequest, _: Call
    ) -> pb.MemberUpdateResponse:
        """Change where the others reach a member."""
        urls = self._urls(request.peerURLs)
        context = self._encode([url.text for url in urls])
        await self._change(UpdateMember(node_of(request.ID), urls[0].address, context))
        return self._with_members(pb.MemberUpdateResponse())

    async def member_promote(
        self, request: pb.MemberPromoteRequest, _: Call
    ) -> pb.MemberPromoteResponse:
        """Let a learner that has caught up vote."""
        await self._change(PromoteMember(node_of(request.ID)))
        self._context.learners_promoted += 1
        return self._with_members(pb.MemberPromoteResponse())

    def _urls(self, texts: Sequence[str]) -> tuple[Url, ...]:
        """Return peer URLs. Raises ``EtcdError`` where one is none that a member here can have."""
        try:
            urls = parse_urls(",".join(texts), "peer-urls")
        except ConfigError as error:
            raise EtcdError(GIVEN_MEMBER_URLS_ARE_INVALID) from error
        founders = self._context.identity.founders.values()
        known = {urlsplit(url).scheme for founder in founders for url in founder.peer_urls}
        if not {url.scheme for url in urls} <= known:
            raise EtcdError(GIVEN_MEMBER_URLS_ARE_INVALID)  # all members speak TLS, or none does
        return urls

    def _encode(self, peer_urls: Sequence[str]) -> bytes:
        return encode_context(self._context.identity.cluster_id, peer_urls)

    async def _change(self, change: MemberChange) -> None:
        try:
            await self._make(change)
        except ChangeRefused as error:
            raise as_etcd_error(error) from error

    async def _make(self, change: MemberChange) -> None:
        context = self._context
        await context.node.change_membership((change,), context.request_timeout_s)

    def _with_members(
        self, response: ResponseT, members: dict[int, MemberInfo] | None = None
    ) -> ResponseT:
        """Add the header, which unlike all others has no revision, and the members."""
        response.header.CopyFrom(self._context.header(revision=0))
        known = self._context.members() if members is None else members
        response.members.extend(as_message(member) for member in known.values())
        return response


def as_etcd_error(refused: ChangeRefused) -> EtcdError:
    """Return what etcd says where the group refuses a change."""
    for kind, status in REFUSALS:
        if isinstance(refused, kind):
            return EtcdError(status)
    return EtcdError(Status(Code.INVALID_ARGUMENT, f"etcdserver: {refused}"))


def as_message(member: MemberInfo) -> pb.Member:
    """Return a member as the API shows it."""
    return pb.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.learner,
    )
