"""Go's ways of writing values, against what Go 1.26 itself printed for them."""

from __future__ import annotations

import pytest

from kvstore.cli.kvctl.golang import (
    duration,
    hexadecimal,
    parse_duration,
    quote,
    size,
    split_arguments,
    unquote,
)


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (b"", '""'),
        (b'a"b\\', r'"a\"b\\"'),
        (b"\x00\x07\n\x1b\x7f", r'"\x00\a\n\x1b\x7f"'),
        (b"raw\xff\xfe", r'"raw\xff\xfe"'),
        ("é中😀".encode(), '"é中😀"'),
        ("\u200b\ue000\U000f0000".encode(), r'"\u200b\ue000\U000f0000"'),
        ("'\u00a0\ufffd".encode(), '"\'\\u00a0\ufffd"'),
    ],
)
def test_quote(data: bytes, written: str) -> None:
    assert quote(data) == written
    assert unquote(written) == data


def test_unquote_refuses_what_go_refuses() -> None:
    assert unquote(r'"\101\x41A"') == b"AAA"
    assert unquote("`raw \\n`") == b"raw \\n"
    with pytest.raises(ValueError, match="unknown escape"):
        unquote(r'"\q"')


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (5e-9, "5ns"),
        (1.5e-6, "1.5µs"),
        (0.002680314, "2.680314ms"),
        (1.000318446, "1.000318446s"),
        (62, "1m2s"),
        (3723.5, "1h2m3.5s"),
    ],
)
def test_duration(seconds: float, written: str) -> None:
    assert duration(seconds) == written
    assert parse_duration(written) == pytest.approx(seconds)


def test_durations_need_units() -> None:
    for text in ("5", "s", "", "5 s", "1x"):
        with pytest.raises(ValueError, match="for example 5s"):
            parse_duration(text)


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (20480, "20 kB"),
        (24576, "25 kB"),
        (82854982, "83 MB"),
    ],
)
def test_size(count: int, written: str) -> None:
    assert size(count) == written


def test_hexadecimal() -> None:
    assert hexadecimal(b"/a\xff") == rb"\x2f\x61\xff"


def test_split_arguments() -> None:
    line = r"""put "a \"b\"" 'c "d' --lease=1 plain"inside"""
    assert split_arguments(line) == [b"put", b'a "b"', b'c "d', b"--lease=1", b'plain"inside']
