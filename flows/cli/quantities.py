"""Durations and sizes as people read them."""

from __future__ import annotations

import re

__all__ = ["duration", "parse_span", "size"]

_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[wdhms])+")
_PART = re.compile(r"([0-9.]+)([wdhms])")
_UNIT_S = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_LONGEST_S = 100 * 365 * 86_400


def duration(seconds: float) -> str:
    """Return a duration in the one or two units that matter, as in "5.3 s" or "2 h 05 min"."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{max(0, milliseconds)} ms"
    tenths = round(seconds * 10)
    if tenths < 600:
        return f"{tenths / 10:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def size(count: int) -> str:
    """Return a number of bytes, as in "142 bytes" or "12.3 kB"."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    scaled = count / 1000
    for unit in ("kB", "MB"):
        if round(scaled, 1) < 1000:
            return f"{scaled:.1f} {unit}"
        scaled /= 1000
    return f"{scaled:.1f} GB"


def parse_span(text: str) -> float:
    """Return the seconds of a span as it is typed: `90s`, `15m`, `2h`, `1d12h`, `2w`.

    Raises:
        ValueError: it is none, or longer than a century.
    """
    if not text.isascii() or _SPAN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no span of time: expected one such as 90s, 2h or 30d")
    total_s = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    if total_s > _LONGEST_S:
        raise ValueError(f"{text!r} is longer than a century")
    return total_s
