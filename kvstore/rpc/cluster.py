"""The Cluster service: MemberList; the member changes answer Unimplemented by name."""

from __future__ import annotations

from typing import Final

from consensus.types import Consistency
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc.context import ServerContext
from kvstore.rpc.registry import Call, Kind, Method, unimplemented

SERVICE: Final = "etcdserverpb.Cluster"


class ClusterService:
    """Cluster on one member."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def methods(self) -> list[Method]:
        """The service's methods, for a registry."""
        changes = (
            ("MemberAdd", pb.MemberAddRequest, pb.MemberAddResponse),
            ("MemberRemove", pb.MemberRemoveRequest, pb.MemberRemoveResponse),
            ("MemberUpdate", pb.MemberUpdateRequest, pb.MemberUpdateResponse),
            ("MemberPromote", pb.MemberPromoteRequest, pb.MemberPromoteResponse),
        )
        return [
            Method(
                SERVICE,
                "MemberList",
                pb.MemberListRequest,
                pb.MemberListResponse,
                Kind.UNARY,
                self.member_list,
            ),
            *(
                unimplemented(
                    SERVICE,
                    name,
                    request,
                    response,
                    Kind.UNARY,
                    f"etcdserver: {name} is not implemented: the engine cannot change its members",
                )
                for name, request, response in changes
            ),
        ]

    async def member_list(self, request: pb.MemberListRequest, _: Call) -> pb.MemberListResponse:
        """List the members; one that has not started yet has neither name nor client URLs."""
        context = self._context
        await context.settle(
            Consistency.LINEARIZABLE if request.linearizable else Consistency.SERIALIZABLE
        )
        # Unlike all other headers, this one has no revision.
        response = pb.MemberListResponse(header=context.header(revision=0))
        known = {attributes.id: attributes for attributes in context.machine.members()}
        for member in sorted(context.identity.members.values(), key=lambda each: each.id):
            listed = response.members.add(ID=member.id, peerURLs=member.peer_urls)
            attributes = known.get(member.id)
            if attributes is not None:
                listed.name = attributes.name
                listed.clientURLs.extend(attributes.client_urls)
        return response
