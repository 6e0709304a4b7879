"""Reads the rows of a log file: JSON lines, JSON documents, or CSV; gzipped or not.

One row at a time, so that a file of any size is read in little memory. A row that cannot be read is
an `Unusable` among the others; a file that cannot be read is an ImportFailed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from cli.imports.logged import Unusable
from cli.imports.values import DECODER, read_values, without_surrogates
from store.errors import ImportFailed
from store.jsontext import JsonObject

MAX_ROW_BYTES = 64 << 20  # bytes of a row, and of a JSON document that is no list
_CHUNK = 1 << 16
_HEAD = 64 << 10
_BOM = codecs.BOM_UTF8
_GZIP = b"\x1f\x8b"
_OTHERS = {  # the first bytes of files that are not read, and what to do with them
    b"PAR1": "a Parquet file; export it as JSONL, JSON or CSV",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it",
    codecs.BOM_UTF16_LE: "UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; save it as UTF-8",
}
_DELIMITERS = ",;\t|"
_MAX_TOKEN = 16  # characters of a number, a literal or an escape that may be cut at a chunk's end
_SPACE = re.compile(r"[\s,]*")
_NEXT = re.compile(r"\n[{\[]")  # where the next document may begin after a damaged one
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that the decoder let through
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# keys under which a JSON document may hold its rows
LISTS = ("data", "logs", "traces", "observations", "generations")
NO_JSON, NO_UTF8, NO_OBJECT = "not valid JSON", "not UTF-8 text", "not a JSON object"

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
    except OSError as error:
        raise ImportFailed(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None


def _rows(file: io.BufferedReader[Any], path: Path) -> Iterator[Row | Unusable]:
    head = file.peek(_HEAD).removeprefix(_BOM)
    for magic, advice in _OTHERS.items():
        if head.startswith(magic):
            raise ImportFailed(f"{path}: {advice}")
    text = head.lstrip()
    if text.startswith(b"[") or (text.startswith(b"{") and _goes_on(text)):
        yield from _documents(file, path)
    elif text.startswith(b"{"):
        yield from _lines(file)
    elif text and (delimiter := _delimiter(text, path)):
        yield from _table(file, path, delimiter)
    elif text:
        raise ImportFailed(f"{path}: neither JSON lines, nor JSON, nor CSV")


def _goes_on(head: bytes) -> bool:
    """Whether the first line is the beginning of JSON that goes on in the next lines."""
    line, end, _ = head.partition(b"\n")
    text = line.decode("utf-8", "replace").rstrip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return bool(end) and error.pos >= len(text)
    except RecursionError:
        return False
    return False


def _lines(file: io.BufferedReader[Any]) -> Iterator[Row | Unusable]:
    """JSON lines."""
    mark = _BOM
    while line := file.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_ROW_BYTES)
            yield _too_long()
        else:
            yield from _row(line.removeprefix(mark))
        mark = b""


def _documents(file: io.BufferedReader[Any], path: Path) -> Iterator[Row | Unusable]:
    """JSON documents one after the other, each over any lines; of a list, its elements."""
    decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
    text, at, more, in_list, elements = "", 0, True, False, 0
    odd_bytes = odd_escapes = False
    while True:
        between = _SPACE.match(text, at)
        at = between.end() if between else at
        if at < len(text) and text[at] == ("]" if in_list else "["):
            in_list, at = not in_list, at + 1
            continue
        if at == len(text) and not more:
            if in_list:
                raise _broken_list(path, elements)
            return
        value, end, fault = _scanned(text, at, more)
        if fault is None:
            if odd_bytes and _NOT_UTF8.search(text, at, end):
                yield Unusable(NO_UTF8)
            else:
                odd = odd_escapes and _SURROGATE.search(text, at, end)
                yield from _expanded(without_surrogates(value) if odd else value)
            at, elements = end, elements + in_list
            continue
        if fault or len(text) - at > MAX_ROW_BYTES:
            if in_list:
                raise _broken_list(path, elements)
            yield Unusable(fault) if fault else _too_long()
            at += 1
            while not (start := _NEXT.search(text, at)) and more:
                chunk = file.read(_CHUNK)
                more = bool(chunk)
                text, at = text[-1:] + decode(chunk, not more), 0
                odd_bytes, odd_escapes = _odd(text)
            at = start.start() if start else len(text)
        else:
            # twice as much each time, or a long row costs its square
            chunk = file.read(max(_CHUNK, len(text) - at))
            more = bool(chunk)
            text, at = text[at:] + decode(chunk, not more), 0
            odd_bytes, odd_escapes = _odd(text)


def _odd(text: str) -> tuple[bool, bool]:
    """Whether bytes that are no UTF-8 are in the text, and escapes of surrogates."""
    return bool(_NOT_UTF8.search(text)), bool(_SURROGATE.search(text))


def _scanned(text: str, at: int, more: bool) -> tuple[Any, int, str | None]:
    """The JSON value there, its end, and None; or the fault: "" when it may go on in the file."""
    try:
        value, end = DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text) - _MAX_TOKEN or error.msg.startswith("Unterminated string")
        return None, at, "" if more and at_end else NO_JSON
    except RecursionError:
        return None, at, NO_JSON
    if end == len(text) and more:  # a number may go on
        return None, at, ""
    return value, end, None


def _broken_list(path: Path, elements: int) -> ImportFailed:
    return ImportFailed(
        f"{path}: the JSON list breaks off or is damaged after {elements:,} elements; what came "
        "before was taken"
    )


def _delimiter(head: bytes, path: Path) -> str | None:
    """What separates the columns of a CSV file, by its header; None: it is no CSV."""
    line = head.splitlines()[0].decode("utf-8", "replace")
    if line.lower().startswith("sep=") and len(line) == len("sep=,"):
        return line[-1]
    columns = {}
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader([line], delimiter=delimiter))
        except csv.Error:
            continue
        if len(names) > 1 and len({name.strip() for name in names} - {""}) == len(names):
            columns[delimiter] = len(names)
    if columns:
        return max(columns, key=lambda delimiter: columns[delimiter])
    name = path.name.lower().removesuffix(".gz")
    return "," if name.endswith(".csv") else "\t" if name.endswith((".tsv", ".tab")) else None


def _table(file: io.BufferedReader[Any], path: Path, delimiter: str) -> Iterator[Row | Unusable]:
    """CSV with a header. Values stay text, also those that hold JSON."""
    csv.field_size_limit(MAX_ROW_BYTES)
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(_bounded(text, path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 0
    try:
        while True:
            try:
                fields = next(reader)
                line = reader.line_num
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise ImportFailed(
                        f"{path}: not valid CSV after line {line}; what came before was taken"
                    ) from None
                yield Unusable("not valid CSV")
                continue
            if not fields or (header is None and fields[0].lower().startswith("sep=")):
                continue
            if header is None:
                header = [name.strip() for name in fields]
            elif len(fields) != len(header):
                yield Unusable("not as many fields as the header has")
            elif _NOT_UTF8.search("".join(fields)):
                yield Unusable(NO_UTF8)
            else:
                pairs = zip(header, fields, strict=True)
                yield {name: value for name, value in pairs if value != ""}
    finally:
        text.detach()  # the caller closes the file


def _bounded(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    while line := text.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES:
            raise ImportFailed(f"{path}: a line is longer than {MAX_ROW_BYTES >> 20} MB")
        yield line


def _row(line: bytes) -> Iterator[Row | Unusable]:
    if not line.strip():
        return
    try:
        values = [orjson.loads(line)]
    except orjson.JSONDecodeError:  # of a lenient writer, or several in one line
        try:
            values = read_values(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield Unusable(NO_UTF8)
            return
        except ValueError:
            yield Unusable(NO_JSON)
            return
    for value in values:
        yield from _expanded(value)


def _expanded(value: Any) -> Iterator[Row | Unusable]:
    """A row, or the rows of the list in it: a page of an API's answer."""
    if not isinstance(value, dict):
        yield Unusable(NO_OBJECT)
        return
    for name in LISTS:
        held = value.get(name)
        if isinstance(held, list) and "id" not in value and "messages" not in value:
            for element in held:
                yield element if isinstance(element, dict) else Unusable(NO_OBJECT)
            return
    yield value


def _too_long() -> Unusable:
    return Unusable(f"longer than {MAX_ROW_BYTES >> 20} MB")
