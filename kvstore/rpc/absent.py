"""What etcd has and this server does not have yet: known by name, and refused by name."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import Message

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import v3electionpb_pb2 as election
from kvstore.pb import v3lockpb_pb2 as lock
from kvstore.rpc.registry import Kind, Method, unimplemented

AUTH: Final = (
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
    "Authenticate",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
)

AUTH_OWN: Final = frozenset({"AuthEnable", "AuthDisable", "AuthStatus", "Authenticate"})
LOCK: Final = ("Lock", "Unlock")
ELECTION: Final = ("Campaign", "Proclaim", "Leader", "Resign")


def absent_methods() -> list[Method]:
    """Return the methods of Auth, Lock and Election, each refusing with UNIMPLEMENTED."""
    return [
        *(
            _absent("etcdserverpb.Auth", name, pb, name if name in AUTH_OWN else f"Auth{name}")
            for name in AUTH
        ),
        *(_absent("v3lockpb.Lock", name, lock, name) for name in LOCK),
        *(_absent("v3electionpb.Election", name, election, name) for name in ELECTION),
        _refusing(
            "v3electionpb.Election",
            "Observe",
            election.LeaderRequest,
            election.LeaderResponse,
            Kind.SERVER_STREAM,
        ),
    ]


def _absent(service: str, name: str, module: Any, stem: str) -> Method:
    request = getattr(module, f"{stem}Request")
    response = getattr(module, f"{stem}Response")
    return _refusing(service, name, request, response, Kind.UNARY)


def _refusing(
    service: str, name: str, request: type[Message], response: type[Message], kind: Kind
) -> Method:
    why = f"etcdserver: {service.rpartition('.')[2]}.{name} is not implemented yet"
    return unimplemented(service, name, request, response, kind, why)
