"""A headless Chromium, driven over its DevTools protocol on two pipes: no port, no library."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import Any

ANSWER_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
DESCRIPTOR_MIN = 20


class BrowserFailed(AssertionError):
    """The browser did not answer, or answered with an error."""


class Page:
    """One tab. Commands and events are the protocol's own."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._to, self._back = to, back
        self._number = 0
        self._pending = b""
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserFailed(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def prefer(self, colours: str) -> None:
        """Let the reader prefer ``light`` or ``dark`` pages."""
        feature = {"name": "prefers-color-scheme", "value": colours}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, path: Path) -> None:
        """Load a file and wait until its script has run."""
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.body && document.body.dataset.ready === 'yes'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserFailed(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise BrowserFailed(f"never true: {expression}")
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Press and release the mouse on the middle of an element that is in view."""
        box = self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def problems(self) -> list[dict[str, Any]]:
        """Exceptions and errors that the page has logged."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in bad]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while b"\0" not in self._pending:
            ready, _, _ = select([self._back], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._back, 1 << 20) if ready else b""
            if not data:
                raise BrowserFailed(f"chromium did not answer (exit code {self._process.poll()})")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _high(pair: tuple[int, int]) -> list[int]:
    """Move descriptors out of the way of 3 and 4, which the browser takes."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, DESCRIPTOR_MIN) for number in pair]
    for number in pair:
        os.close(number)
    return moved


@contextlib.contextmanager
def chromium(program: str, directory: Path, width: int = 1240, height: int = 900) -> Iterator[Page]:
    """Start a browser with a profile of its own in ``directory``, and end it."""
    their_in, our_out = _high(os.pipe())
    our_in, their_out = _high(os.pipe())
    script = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    command = [
        *("bash", "-c", script, "bash", program, "--headless=new", "--remote-debugging-pipe"),
        *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--hide-scrollbars"),
        *(f"--window-size={width},{height}", f"--user-data-dir={directory / 'profile'}"),
    ]
    with (directory / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(their_in, their_out),
            env={**os.environ, "HOME": str(directory)},
        )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Page(process, our_out, our_in)
    finally:
        os.close(our_out)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(our_in)
