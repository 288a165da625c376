"""Durations and sizes as people read them."""

from __future__ import annotations

__all__ = ["duration", "size"]


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
