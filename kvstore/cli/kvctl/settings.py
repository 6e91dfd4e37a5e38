"""The options that every command shares, and the connection made from them.

They may stand before or after the command's name, or in the environment as ``ETCDCTL_...``; what is
given on the command line wins.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from kvstore.cli.kvctl.failures import BadArguments, Failure
from kvstore.cli.kvctl.golang import parse_duration

if TYPE_CHECKING:
    from kvstore.cli.kvctl.printers import Printer
    from kvstore.client import AsyncClient

R = TypeVar("R")

DEFAULT_ENDPOINTS: Final = "127.0.0.1:2379"


@attrs.define
class Settings:
    """What the shared options said."""

    endpoints: str = DEFAULT_ENDPOINTS
    write_out: str = "simple"
    hex: bool = False
    dial_timeout: float = 2.0
    command_timeout: float = 5.0
    cacert: str = ""
    cert: str = ""
    key: str = ""
    insecure_skip_tls_verify: bool = False
    insecure_transport: bool = True
    user: str = ""
    password: str = ""
    debug: bool = False

    @property
    def endpoint_list(self) -> list[str]:
        """The endpoints one by one. Fails if there is none."""
        listed = [each.strip() for each in self.endpoints.split(",") if each.strip()]
        if not listed:
            raise BadArguments(f"--endpoints is empty: name one, for example {DEFAULT_ENDPOINTS}")
        return listed

    def client(self) -> AsyncClient:
        """Return a client made from the options. Fails if they make no sense together."""
        from kvstore.client import AsyncClient

        user, _, password = self.user.partition(":")
        if user and not password:
            password = self.password or click.prompt("Password", hide_input=True, err=True)
        try:
            return AsyncClient(
                self.endpoint_list,
                timeout_s=self.command_timeout,
                dial_timeout_s=self.dial_timeout,
                tls=self._tls(),
                user=user or None,
                password=password,
            )
        except ValueError as error:
            raise Failure(str(error)) from None

    def _tls(self) -> Any:
        secure = any(each.startswith("https://") for each in self.endpoint_list)
        files = (self.cacert, self.cert, self.key)
        if not (secure or any(files) or not self.insecure_transport):
            return None
        from kvstore.client import Tls

        for path in filter(None, files):
            if not os.access(path, os.R_OK):
                raise Failure(f"cannot read {path}: check --cacert, --cert and --key")
        skip = self.insecure_skip_tls_verify
        return Tls(self.cacert or None, self.cert or None, self.key or None, skip_verify=skip)

    def printer(self) -> Printer:
        """Return the printer of the chosen output format. Fails if there is none."""
        from kvstore.cli.kvctl.printers import printer_for

        return printer_for(self.write_out, self.hex)

    def run(self, work: Callable[[AsyncClient], Awaitable[R]]) -> R:
        """Run ``work`` with a client, close the client, and return what ``work`` did."""
        import asyncio

        async def session() -> R:
            async with self.client() as client:
                return await work(client)

        return asyncio.run(session())


class Duration(click.ParamType[float]):
    """A Go duration: ``5s``, ``500ms``, ``1m30s``."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings of this run, shared by all its contexts."""
    found = ctx.find_root().ensure_object(Settings)
    if not isinstance(found, Settings):
        raise TypeError(f"the root context carries {found!r}")
    return found


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and param.name is not None:
        setattr(settings_of(ctx), param.name, value)


def _store_debug(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    _store(ctx, param, value)
    # What gRPC would log of a failed connection is in the error that the user gets. It looks at
    # this once, when it is imported.
    os.environ["GRPC_VERBOSITY"] = "debug" if settings_of(ctx).debug else "none"


def _option(*names: str, callback: Any = _store, **how: Any) -> click.Option:
    long = next(name for name in names if name.startswith("--"))
    how.setdefault("envvar", "ETCDCTL_" + long[2:].replace("-", "_").upper())
    return click.Option(names, expose_value=False, callback=callback, default=None, **how)


def shared_options(hidden: bool) -> list[click.Option]:
    """Return the shared options, once for the program and hidden for each command."""
    options = [
        _option("--endpoints", metavar="LIST", help="Servers, comma-separated [127.0.0.1:2379]."),
        _option("-w", "--write-out", metavar="FORMAT", help="simple, json, table or fields."),
        _option("--hex", is_flag=True, help=r"Print keys and values as \x61\x62."),
        _option("--command-timeout", type=Duration(), help="Limit of a short command [5s]."),
        _option("--dial-timeout", type=Duration(), help="Limit of opening a connection [2s]."),
        _option("--cacert", metavar="FILE", help="Certificates to trust (makes it TLS)."),
        _option("--cert", metavar="FILE", help="The client's own certificate."),
        _option("--key", metavar="FILE", help="The client's own key."),
        _option("--user", metavar="NAME[:PASSWORD]", help="For a cluster with authentication."),
        _option("--password", help="The password, if --user does not carry it."),
        _option(
            "--insecure-transport/--no-insecure-transport",
            help="No TLS where an endpoint has no scheme [on].",
        ),
        _option("--insecure-skip-tls-verify", is_flag=True, help="Take any certificate (tests)."),
        _option("--debug", is_flag=True, callback=_store_debug, help="Show what gRPC does."),
    ]
    for option in options:
        option.hidden = option.hidden or hidden
        if hidden:
            option.envvar = None  # the program's own options have read the environment already
    return options
