"""The ``kvstore`` command: a server that takes etcd's flags."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

import structlog
import uvloop

from consensus.errors import ConfigError, ConsensusError, StorageError
from kvstore.cli.server_help import help_text
from kvstore.config import Given, ServerConfig, gather, load, resolve
from kvstore.conversion import convert, how_to_move
from kvstore.datadir import WrongEngine
from kvstore.goflags import UsageError
from kvstore.logs import configure_logs
from kvstore.server import Server
from kvstore.version import version_text

log = structlog.get_logger("kvstore")

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
REBUILDS_MAX: Final = 3
"""Times that one process rebuilds a damaged store: beyond it the disk is at fault."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server until it is told to stop; exits the process."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(run(words))


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit status."""
    if arguments and arguments[0] == "convert":
        return run_convert(arguments[1:])
    try:
        given = gather(arguments, os.environ)
        if given["version"]:
            sys.stdout.write(version_text())
            return 0
        if given["help"] or given["h"]:
            sys.stdout.write(help_text())
            return 0
        config = resolve(given)
        configure_logs(config.log_level, config.log_format, config.log_outputs)
    except UsageError as error:
        complain(f"{error}\nRun `kvstore --help` for all flags.")
        return EXIT_USAGE
    except ConfigError as error:
        complain(str(error))
        return EXIT_FAILED
    return serve(config, given)


def run_convert(arguments: Sequence[str]) -> int:
    """``kvstore convert --to ENGINE`` with a member's flags; return the exit status."""
    words = ["--engine" + word[len("--to") :] if _is_to(word) else word for word in arguments]
    if not any(map(_is_to, arguments)):
        complain("convert: say to which engine, for instance: kvstore convert --to native")
        return EXIT_USAGE
    try:
        print(convert(load(words, offline=True)))
    except UsageError as error:
        complain(f"{error}\nRun `kvstore --help` for all flags.")
        return EXIT_USAGE
    except (ConfigError, StorageError) as error:
        complain(str(error))
        return EXIT_FAILED
    return 0


def _is_to(word: str) -> bool:
    return word == "--to" or word.startswith("--to=")


def complain(text: str) -> None:
    """Tell a person what is wrong."""
    sys.stderr.write(f"kvstore: {text}\n")


def serve(config: ServerConfig, given: Given) -> int:
    """Run a server with these settings until it stops; return the exit status."""
    for warning in config.warnings:
        log.warning(warning)
    log.info(
        "starting",
        pid=os.getpid(),
        name=config.name,
        data_dir=str(config.data_dir),
        engine=config.engine,
        members=list(config.initial_cluster),
        flags=sorted(given.values),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: ServerConfig) -> int:
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[str] = loop.create_future()

    def stop(name: str) -> None:
        if not stopping.done():
            stopping.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    for _ in range(1 + REBUILDS_MAX):
        status = await _serve_once(config, stopping)
        if status is not None:
            return status
        log.warning("starting again, to rebuild the store from the other members")
    complain(f"the store was damaged again after {REBUILDS_MAX} rebuilds: check the disk")
    return EXIT_FAILED


async def _serve_once(config: ServerConfig, stopping: asyncio.Future[str]) -> int | None:
    """Run one server until it is over; return the exit status, or None to start another."""
    server = Server(config, notes_crashes=True)
    starting = asyncio.create_task(server.start(), name="start")
    try:
        await first_of(starting, stopping)
        if starting.done():
            await starting
            return await _until_over(server, stopping)
        log.info("stopping before the start was over", signal=stopping.result())
        starting.cancel()
        await asyncio.wait({starting})
    except WrongEngine as error:
        complain(f"{error}: {how_to_move(error.path, error.found, error.wanted)}")
        return EXIT_FAILED
    except (ConfigError, StorageError) as error:
        complain(str(error))
        return EXIT_FAILED
    except ConsensusError as error:
        if hasattr(server, "node") and server.node.wants_restart:
            log.error("this member has stopped to keep its promises", reason=str(error))
            return None
        complain(f"cannot start: {error}")
        return EXIT_FAILED
    finally:
        await server.stop()
        log.info("stopped")
    return 0


async def first_of(*awaited: asyncio.Future[Any]) -> None:
    """Return once one of them is done."""
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


async def _until_over(server: Server, stopping: asyncio.Future[str]) -> int | None:
    """Wait for a signal (0) or for the node to halt (1, or None if it will be well again)."""
    halted = asyncio.create_task(server.wait_halted(), name="halted")
    try:
        await first_of(halted, stopping)
        if stopping.done():
            log.info("stopping", signal=stopping.result())
            return 0
        if server.node.status().removed:
            log.warning("this member was removed from its cluster", reason=halted.result())
            return 0
        log.error("this member has stopped to keep its promises", reason=halted.result())
        return None if server.node.wants_restart else EXIT_FAILED
    finally:
        halted.cancel()


if __name__ == "__main__":
    main()
