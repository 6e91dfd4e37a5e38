r"""The ways in which Go writes and reads values, where etcdctl's output or input depends on them.

Quoted strings (``%q``), durations (``1.5s``), sizes as go-humanize prints them, and the splitting
of a typed line into arguments.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    '"': r"\"",
    "\\": r"\\",
}
_UNESCAPES: Final = {written[1]: char for char, written in _ESCAPES.items()}

#: A string as Go writes it, in double quotes or in backquotes.
QUOTED: Final = r'"(?:[^"\\]|\\.)*"|`[^`]*`'

_ARGUMENT: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*""")
_ESCAPE: Final = re.compile(
    rb"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL
)
_DURATION: Final = re.compile(r"([0-9]*\.?[0-9]+|[0-9]+\.)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def quote(data: bytes) -> str:
    """Return ``data`` as ``%q`` prints it: in double quotes, with Go's escapes."""
    written = []
    # Bytes that are not UTF-8 come out as lone surrogates, one for each.
    for char in data.decode("utf-8", "surrogateescape"):
        point = ord(char)
        if char in _ESCAPES:
            written.append(_ESCAPES[char])
        elif 0xDC80 <= point <= 0xDCFF:
            written.append(f"\\x{point - 0xDC00:02x}")
        elif char.isprintable():
            written.append(char)
        elif point < 0x80:
            written.append(f"\\x{point:02x}")
        else:
            written.append(f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}")
    return '"' + "".join(written) + '"'


def unquote(text: str) -> bytes:
    r"""Return what a Go string literal stands for. Raises ``ValueError`` at an unknown escape."""
    if text.startswith("`"):
        return text[1:-1].encode()

    def replace(found: re.Match[bytes]) -> bytes:
        byte, short, long, octal, letter = found.groups()
        if byte is not None:
            return bytes([int(byte, 16)])
        if octal is not None:
            return bytes([int(octal, 8) & 0xFF])
        if letter is None:
            return chr(int(short or long, 16)).encode()
        name = letter.decode("latin-1")
        if name not in _UNESCAPES:
            raise ValueError(f"unknown escape \\{name} in {text}")
        return _UNESCAPES[name].encode()

    return _ESCAPE.sub(replace, text[1:-1].encode())


def hexadecimal(data: bytes) -> bytes:
    r"""Return ``data`` as etcdctl's ``--hex`` prints it: ``\x61\x62``."""
    return "".join(f"\\x{byte:02x}" for byte in data).encode()


def split_arguments(line: str) -> list[bytes]:
    """Split a typed line into arguments; ``"..."`` takes escapes, ``'...'`` is literal."""
    arguments = []
    for word in _ARGUMENT.findall(line):
        if word.startswith('"'):
            arguments.append(unquote(word))
        elif word.startswith("'"):
            arguments.append(word[1:-1].encode())
        else:
            arguments.append(word.encode())
    return arguments


def parse_duration(text: str) -> float:
    """Return the seconds of a duration like ``5s``, ``500ms`` or ``1m30s``.

    Raises ``ValueError`` with the text of an example if it is none.
    """
    rest = text.removeprefix("+")
    if rest == "0":
        return 0.0
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ValueError(
            f'"{text}" is not a duration: write it with a unit, for example 5s or 500ms'
        )
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def duration(seconds: float) -> str:
    """Return a duration as Go prints it: ``1.5s``, ``2.680314ms``, ``1m2s``."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    for limit, unit, size in ((10**3, "ns", 1), (10**6, "µs", 10**3), (10**9, "ms", 10**6)):
        if nanoseconds < limit:
            return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    shown = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{hours}h{minutes}m{shown}"
    return f"{minutes}m{shown}" if minutes else shown


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    digits = len(str(size)) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0") if digits else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def size(count: int) -> str:
    """Return a number of bytes as go-humanize prints it: ``25 kB``, ``1.5 MB``."""
    if count < 10:
        return f"{count} B"
    value, unit = float(count), 0
    # The unit is chosen before rounding: 999,950 is "1000 kB".
    while value >= 1000 and unit < len(_SIZE_UNITS) - 1:
        value /= 1000
        unit += 1
    rounded = int(value * 10 + 0.5) / 10
    digits = 1 if rounded < 10 else 0
    return f"{rounded:.{digits}f} {_SIZE_UNITS[unit]}"
