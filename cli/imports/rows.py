"""Reads the rows of a log file: JSON lines, one JSON document, or CSV; gzipped or not.

One row at a time, so that a file of any size is read in little memory. A row that cannot be read is
an `Unusable` among the others; a file that cannot be read is an ImportFailed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from cli.imports.logged import Unusable
from store.errors import ImportFailed
from store.jsontext import JsonObject

MAX_ROW_BYTES = 64 << 20  # bytes of a row, and of a JSON document that is no list
_CHUNK = 1 << 20
_HEAD = 64 << 10
_BOM = codecs.BOM_UTF8
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_SPACE = " \t\r\n"
# keys under which a JSON document may hold its rows
LISTS = ("data", "logs", "traces", "observations", "generations")

Row = JsonObject


def read_rows(path: Path) -> Iterator[Row | Unusable]:
    """The rows of a file, in their order. Raises ImportFailed that names the file."""
    try:
        with path.open("rb", buffering=0) as plain:
            gzipped = plain.read(2) == _GZIP
            plain.seek(0)
            raw: Any = gzip.GzipFile(fileobj=plain) if gzipped else plain
            with io.BufferedReader(raw, 2 * _HEAD) as file:
                yield from _rows(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ImportFailed(f"{path}: the gzip file is damaged or not whole") from None
    except UnicodeDecodeError:
        raise ImportFailed(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ImportFailed(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None


def _rows(file: io.BufferedReader[Any], path: Path) -> Iterator[Row | Unusable]:
    head = file.peek(_HEAD).removeprefix(_BOM)
    if head.startswith(_PARQUET):
        raise ImportFailed(f"{path}: a Parquet file; export it as JSONL, JSON or CSV")
    first = head.lstrip()[:1]
    if first == b"[":
        yield from _list(file, path)
    elif first == b"{":
        yield from _lines(file)
    elif path.name.lower().removesuffix(".gz").endswith(".csv") or b"," in head.split(b"\n", 1)[0]:
        yield from _table(file, path)
    elif first:
        raise ImportFailed(f"{path}: neither JSON lines, nor JSON, nor CSV")


def _lines(file: io.BufferedReader[Any]) -> Iterator[Row | Unusable]:
    """JSON lines, or one object printed over several lines."""
    first = file.readline(MAX_ROW_BYTES)
    if first.endswith(b"\n") and not _is_json(first.removeprefix(_BOM)):
        document = first + file.read(MAX_ROW_BYTES)
        if len(document) <= MAX_ROW_BYTES and _is_json(document.removeprefix(_BOM)):
            yield from _row(document.removeprefix(_BOM))
            return
        yield from _row(first.removeprefix(_BOM))
        file = io.BufferedReader(_Chained(document[len(first) :], file))
    else:
        yield from _row(first.removeprefix(_BOM))
    while line := file.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_ROW_BYTES)
            yield Unusable(f"longer than {MAX_ROW_BYTES >> 20} MB")
        else:
            yield from _row(line)


class _Chained(io.RawIOBase):
    """The bytes that were read ahead, then the rest of the file."""

    def __init__(self, ahead: bytes, rest: io.BufferedReader[Any]) -> None:
        self._ahead = io.BytesIO(ahead)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._ahead.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(got)] = got
        return len(got)


def _list(file: io.BufferedReader[Any], path: Path) -> Iterator[Row | Unusable]:
    """A JSON list, element by element."""
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    scan = json.JSONDecoder().raw_decode
    text, at, size, more = "", 0, _CHUNK, True
    number = 0
    while True:
        while at < len(text) and text[at] in _SPACE + ("[" if not number else ","):
            number += text[at] == "["
            at += 1
        if at < len(text) and text[at] == "]":
            return
        try:
            value, end = scan(text, at)
            if end == len(text) and more:  # a number may go on
                raise ValueError
        except (ValueError, RecursionError) as error:
            if not more or isinstance(error, RecursionError) or len(text) - at > MAX_ROW_BYTES:
                raise ImportFailed(
                    f"{path}: the JSON list breaks off or is damaged after {max(number - 1, 0):,} "
                    "elements; what came before was taken"
                ) from None
            text, at = text[at:], 0
            size = max(_CHUNK, len(text))  # twice as much each time, or a long row costs its square
            chunk = file.read(size)
            more = bool(chunk)
            text += decode(chunk, not more)
            continue
        at = end
        number += 1
        yield from _expanded(value)


def _table(file: io.BufferedReader[Any], path: Path) -> Iterator[Row | Unusable]:
    """CSV with a header. Values stay text, also those that hold JSON."""
    csv.field_size_limit(MAX_ROW_BYTES)
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                yield Unusable("not as many fields as the header has")
            else:
                yield {str(name): value for name, value in row.items() if value != ""}
    except csv.Error:
        raise ImportFailed(
            f"{path}: not valid CSV after line {reader.line_num}; what came before was taken"
        ) from None
    finally:
        text.detach()  # the caller closes the file


def _row(line: bytes) -> Iterator[Row | Unusable]:
    if not line.strip():
        return
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        yield Unusable("not valid JSON")
        return
    yield from _expanded(value)


def _expanded(value: Any) -> Iterator[Row | Unusable]:
    """A row, or the rows of the list in it: a page of an API's answer."""
    if not isinstance(value, dict):
        yield Unusable("not a JSON object")
        return
    for name in LISTS:
        held = value.get(name)
        if isinstance(held, list) and "id" not in value and "messages" not in value:
            for element in held:
                yield element if isinstance(element, dict) else Unusable("not a JSON object")
            return
    yield value


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
