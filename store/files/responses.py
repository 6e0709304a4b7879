"""Stored responses of students, which clients may refer to later: a file each.

    data_dir/responses/2026031407/019ce…b2.json     the hour (UTC) of the trace's id, and its digits

A client may refer to a response later (`previous_response_id`, `GET /v1/responses/…`), and the
teacher does not know those of students. So their ids are recognisable: `resp_`, the 32 digits of
the trace's UUID, 8 digits that number it within its response, and 8 digits of a hash of the rest.
Other ids are the teacher's. A file's name is made from a parsed UUID, never from a client's text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from store.files.atomic import read_regular, write_atomically
from store.jsontext import JsonObject

HOUR_S = 3600
DAY_S = 24 * HOUR_S
_MAX_BYTES = 1 << 30  # of a stored response with its input
_ID = re.compile(r"([a-z]{1,8})_([0-9a-f]{32})([0-9a-f]{8})([0-9a-f]{8})")
_HOUR = re.compile(r"\d{10}")
_TRACE = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response, with the input that a following request needs."""

    response: JsonObject  # the object that the client got
    input: list[JsonObject]  # the request's items, as the client sent them
    key_hash: str | None  # of the client's key; None without server.keys


def own_id(prefix: str, trace_id: str, number: int = 0) -> str:
    """The id of a response (`resp`) or of an item in it (`msg`, `fc`…), by its number there."""
    rest = f"{_digits(trace_id)}{number:08x}"
    return f"{prefix}_{rest}{_check(prefix, rest)}"


def trace_of(own: str) -> str | None:
    """The trace of the response or item with this id; None when the id is not ours."""
    match = _ID.fullmatch(own)
    if match is None:
        return None
    prefix, digits, number, check = match.groups()
    if check != _check(prefix, digits + number):
        return None
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def keep_response(
    folder: Path, trace_id: str, response: bytes, input_items: list[Any], key_hash: str | None
) -> None:
    """Writes a response, as JSON, with its input: see KeptResponse.

    Raises OSError when that fails; nothing is stored then.
    """
    content = orjson.dumps(
        {"key_hash": key_hash, "input": input_items, "response": orjson.Fragment(response)}
    )
    # no fsync: one lost in a power cut is treated as expired
    write_atomically(_file(folder, trace_id), content, durable=False)


def read_response(folder: Path, trace_id: str, *, keep_s: float) -> KeptResponse | None:
    """The response; None if never kept, deleted, or older than `keep_s`."""
    if _asked_at(trace_id) + keep_s <= time.time():
        return None
    try:
        found = orjson.loads(read_regular(_file(folder, trace_id), _MAX_BYTES))
        return KeptResponse(found["response"], found["input"], found["key_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_responses(folder: Path, trace_ids: Iterable[str]) -> int:
    """Deletes the responses of these traces; returns how many there were."""
    found = 0
    for trace_id in trace_ids:
        try:
            _file(folder, trace_id).unlink()
            found += 1
        except FileNotFoundError:
            pass
    return found


def sweep_responses(folder: Path, *, keep_s: float) -> None:
    """Deletes the hours whose responses have all expired."""
    import shutil  # noqa: PLC0415 - slow to load, and a worker's start should not wait for it

    first_kept = _hour(time.time() - keep_s)
    if folder.is_dir():
        for hour in folder.iterdir():
            if _HOUR.fullmatch(hour.name) and hour.name < first_kept:
                shutil.rmtree(hour, ignore_errors=True)


def _file(folder: Path, trace_id: str) -> Path:
    return folder / _hour(_asked_at(trace_id)) / f"{_digits(trace_id)}.json"


def _asked_at(trace_id: str) -> float:
    """Seconds since the epoch, from the first 48 bits of a UUIDv7."""
    return int(_digits(trace_id)[:12], 16) / 1000


def _digits(trace_id: str) -> str:
    """The 32 digits of a UUID, with or without dashes. Raises ValueError on anything else."""
    if (
        _TRACE.fullmatch(trace_id) is None
    ):  # as uuid.UUID does, whose import takes ten times as long
        raise ValueError("not the id of a trace")
    return trace_id.replace("-", "")


def _hour(at: float) -> str:
    return time.strftime("%Y%m%d%H", time.gmtime(at))


def _check(prefix: str, rest: str) -> str:
    return blake2b(f"{prefix}_{rest}".encode(), digest_size=4, person=b"understudy").hexdigest()
