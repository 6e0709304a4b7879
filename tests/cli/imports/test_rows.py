"""Log files are read row by row, in every form, and damage is reported with its place."""

from __future__ import annotations

import csv
import gzip
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.imports import rows as import_rows
from cli.imports.logged import Unusable
from cli.imports.rows import read_rows
from store.errors import ImportFailed

ROWS = [{"id": n, "text": f'größer {n}, "said"\n[{{]}}'} for n in range(5)]


def file(folder: Path, content: str | bytes, name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def told(path: Path) -> list[Any]:
    return [str(row) if isinstance(row, Unusable) else row for row in read_rows(path)]


FORMS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "lines with ends, empty lines and a mark": "\ufeff"
    + "\r\n\r\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS)
    + "\n",
    "list": json.dumps(ROWS),
    "printed list": json.dumps(ROWS, indent=4, ensure_ascii=False),
    "list with a mark": "\ufeff " + json.dumps(ROWS, ensure_ascii=False),
    "page of an API": json.dumps({"object": "list", "data": ROWS, "has_more": False}),
    "printed page": json.dumps({"data": ROWS, "meta": {"page": 1}}, indent=2),
    "pages in lines": "\n".join(json.dumps({"data": [row]}) for row in ROWS),
}

CUT_SHORT = gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20]


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_json_lines_json_and_csv_give_the_same_rows(
    tmp_path: Path, content: str, zipped: bool
) -> None:
    raw = content.encode()
    assert told(file(tmp_path, gzip.compress(raw, mtime=0) if zipped else raw)) == ROWS


def test_csv_quotes_and_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, ["id", "text", "none"])
        writer.writeheader()
        writer.writerows(ROWS)
        out.write("7\r\n8,x,y,z\r\n")
    faults = ["not as many fields as the header has"] * 2
    assert told(path) == [{**row, "id": str(row["id"])} for row in ROWS] + faults


def test_a_broken_row_is_one_among_others(tmp_path: Path) -> None:
    lines = ['{"a": 1}', "{torn", "[1]", '"x"', "{" * 2000, '{"b": 2}']
    no, none = "not valid JSON", "not a JSON object"
    assert told(file(tmp_path, "\n".join(lines))) == [{"a": 1}, no, none, none, no, {"b": 2}]
    assert told(file(tmp_path, "\n".join(lines[1:]))) == [no, none, none, no, {"b": 2}]
    assert told(file(tmp_path, '[{"a": 1}, 3, [], {"b": 2}]')) == [{"a": 1}, none, none, {"b": 2}]
    assert told(file(tmp_path, "")) == []
    assert told(file(tmp_path, "[]")) == []


def test_objects_printed_over_several_lines_are_read_one_after_the_other(tmp_path: Path) -> None:
    printed = [json.dumps(row, indent=2) for row in ROWS]
    for between in ("\n", "\n\n", " ", ",\n", "\r\n"):
        assert told(file(tmp_path, between.join(printed))) == ROWS
    assert told(file(tmp_path, "".join(map(json.dumps, ROWS)))) == ROWS
    assert (
        told(file(tmp_path, json.dumps(ROWS[:2], indent=1) + "\n" + json.dumps(ROWS[2:]))) == ROWS
    )


def test_a_damaged_printed_object_is_one_row_and_the_next_is_read(tmp_path: Path) -> None:
    printed = [json.dumps(row, indent=2) for row in ROWS]
    damaged = [printed[0], printed[1].replace(":", "=", 1), printed[2][:-1], printed[3]]
    assert told(file(tmp_path, "\n".join(damaged))) == [ROWS[0], *["not valid JSON"] * 2, ROWS[3]]


LATIN1 = b"{'text': 'gr\xf6sse'}".replace(b"'", b'"')


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.jsonl", b"\n".join([b'{"text": "a"}', LATIN1, b'{"text": "b"}'])),
        ("log.json", b"[" + b",\n".join([b'{"text": "a"}', LATIN1, b'{"text": "b"}']) + b"]"),
        ("log.csv", b"text,id\na,\ngr\xf6sse,\nb,\n"),
    ],
)
def test_a_byte_of_latin_1_is_one_bad_row(tmp_path: Path, name: str, content: bytes) -> None:
    assert told(file(tmp_path, content, name)) == [{"text": "a"}, "not UTF-8 text", {"text": "b"}]


@pytest.mark.parametrize("name", ["log.jsonl", "log.json"])
def test_half_a_surrogate_pair_becomes_the_replacement_character(tmp_path: Path, name: str) -> None:
    rows = [{"text": "cut \ud83d", "\udc00": [1]}, {"text": "whole \U0001f600"}]
    lines = [json.dumps(row) for row in rows]
    content = "\n".join(lines) if name == "log.jsonl" else f"[{','.join(lines)}]"
    assert told(file(tmp_path, content, name)) == [{"text": "cut \ufffd", "\ufffd": [1]}, rows[1]]


@pytest.mark.parametrize("name", ["log.jsonl", "log.json"])
def test_numbers_that_json_does_not_have_are_null(tmp_path: Path, name: str) -> None:
    content = '{"a": NaN, "b": -Infinity, "c": 1}\n'
    content = content if name == "log.jsonl" else f"[{content}]"
    assert told(file(tmp_path, content, name)) == [{"a": None, "b": None, "c": 1}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["log.csv", "log.txt", "export"])
def test_csv_is_recognised_by_its_header(
    tmp_path: Path, delimiter: str, mark: str, name: str
) -> None:
    rows = [["id", "text, or none", "c;d"], ["1", 'said "a\n,;\tb"', "x"]]
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8") as out:
        out.write(mark)
        csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    assert told(path) == [dict(zip(*rows, strict=True))]


def test_a_line_of_excel_that_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    assert told(file(tmp_path, "sep=;\na;b\n1;2\n", "log.csv")) == [{"a": "1", "b": "2"}]


def test_a_quote_in_the_wrong_place_of_a_csv_file_is_one_bad_row(tmp_path: Path) -> None:
    content = 'a,b\n1,2\n"3"x,4\n5,6\n'
    one, two = {"a": "1", "b": "2"}, {"a": "5", "b": "6"}
    assert told(file(tmp_path, content, "log.csv")) == [one, "not valid CSV", two]


def test_a_row_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_rows, "MAX_ROW_BYTES", 1 << 20)
    long = json.dumps({"a": "x" * (3 << 20)})
    path = file(tmp_path, f'{{"a": 1}}\n{long}\n{{"b": 2}}\n')
    assert told(path) == [{"a": 1}, "longer than 1 MB", {"b": 2}]


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"PAR1....", "log.parquet", "a Parquet file; export it as JSONL, JSON or CSV"),
        (b"hello", "log.txt", "neither JSON lines, nor JSON, nor CSV"),
        (b'[{"a": 1}, {"b": ', "log.json", "breaks off or is damaged after 1 elements"),
        (b'[{"a": 1} {"b"', "log.json", "breaks off or is damaged after 1 elements"),
        (b"[" * 100_000, "log.json", "breaks off or is damaged"),
        (
            gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20],
            "log.jsonl.gz",
            "damaged or not whole",
        ),
        (b'a,b\n1,"open\n', "log.csv", "not valid CSV after line 1"),
        ("a,b\n1,2\n".encode("utf-16"), "log.csv", "UTF-16 text; save it as UTF-8"),
        (b"PK\x03\x04....", "log.zip", "a ZIP archive; unpack it"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, content: bytes, name: str, why: str
) -> None:
    with pytest.raises(ImportFailed) as error:
        told(file(tmp_path, content, name))
    assert why in str(error.value)
    assert name in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="cannot be read"):
        told(tmp_path / "none.jsonl")
    with pytest.raises(ImportFailed, match="cannot be read"):
        told(tmp_path)


@pytest.mark.parametrize("form", ["lines", "list", "csv"])
@pytest.mark.slow
def test_a_large_file_takes_little_memory(tmp_path: Path, form: str) -> None:
    row = {"id": 1, "text": "x" * 2000}
    path = tmp_path / f"log.{form}"
    with path.open("w", newline="") as out:
        if form == "csv":
            writer = csv.DictWriter(out, list(row))
            writer.writeheader()
            for _ in range(20_000):
                writer.writerow(row)
        else:
            between = "\n" if form == "lines" else ",\n"
            out.write("" if form == "lines" else "[")
            out.write(between.join([json.dumps(row)] * 20_000))
            out.write("" if form == "lines" else "]")
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 12 << 20  # of 40 MB


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=200)
    | st.sampled_from(["[", "{", "[{", "a,b\n", '{"data": [']).flatmap(
        lambda head: st.binary(max_size=80).map(lambda rest: head.encode() + rest)
    )
)
@pytest.mark.slow
def test_no_bytes_raise_anything_but_import_failed(tmp_path: Path, content: bytes) -> None:
    try:
        rows = told(file(tmp_path, content))
    except ImportFailed:
        return
    assert all(isinstance(row, dict | str) for row in rows)


json_rows = st.lists(
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text() | st.floats()),
    max_size=8,
)


def _readable(row: dict[str, Any], *, ascii_: bool) -> Any:
    text = json.dumps(row, ensure_ascii=False)
    whole = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    return json.loads(whole) if ascii_ or whole == text else "not UTF-8 text"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(json_rows, st.integers(1, 40), st.booleans())
@pytest.mark.slow
def test_a_json_list_is_the_same_at_every_chunk_border(
    tmp_path: Path, rows: list[dict[str, Any]], chunk: int, ascii_: bool
) -> None:
    plain = json.dumps(rows, default=str).replace("NaN", "0").replace("Infinity", "0")
    rows = json.loads(plain)
    text = json.dumps(rows, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    path = file(tmp_path, text)
    before = import_rows._CHUNK
    import_rows._CHUNK = chunk
    try:
        assert told(path) == [_readable(row, ascii_=ascii_) for row in rows]
    finally:
        import_rows._CHUNK = before
