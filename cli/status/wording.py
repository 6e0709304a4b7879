"""Formats numbers, times and texts of a status; missing values are shown as `-`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from store.jsontext import JsonMapping

NOTHING = "-"


def mapping(value: Any) -> JsonMapping:
    """The value when it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str:
    """Any value in a few words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(text(item) for item in value) or NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(item)}" for name, item in value.items()) or NOTHING
    return NOTHING if value is None else str(value)


def number(value: Any) -> str:
    """A number with three significant digits, or all digits of its integer part."""
    if not isinstance(value, int | float):
        return NOTHING
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: Any) -> str:
    """A duration."""
    if not isinstance(value, int | float):
        return NOTHING
    return f"{value:.1f} s" if value < 60 else f"{value // 60:.0f} min {value % 60:.0f} s"


def percent(share: Any) -> str:
    """A share as percent, without a space, so that no line is broken there."""
    return f"{share * 100:.3g}%" if isinstance(share, int | float) else NOTHING


def proven(certificate: JsonMapping) -> str:
    """The lower bound, never rounded up, against the threshold."""
    bound, threshold = certificate.get("lower_bound"), certificate.get("threshold")
    if not isinstance(bound, int | float) or not isinstance(threshold, int | float):
        return NOTHING
    tenths = int(bound * 1000 + 1e-9) / 10
    return f"{tenths:g}% {'≥' if bound >= threshold else '<'} {percent(threshold)}"


def when(at: Any) -> str:
    """A time since the epoch, as local time."""
    if not isinstance(at, int | float):
        return NOTHING
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
