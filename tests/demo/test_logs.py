"""Reading a file of logged answers, and dealing its rows out."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.backtest.logs import LogRow, lay_out, messages_key, read_rows
from store.chat.shape import Messages, input_hash
from store.errors import BacktestError

SECRET = "the-secret-text"


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def rows(*texts: str) -> list[LogRow]:
    """Rows whose answer is their text in upper case."""
    return [LogRow(user(text), text.upper()) for text in texts]


def numbered(count: int, prefix: str = "n") -> list[LogRow]:
    return rows(*(f"{prefix}{i}" for i in range(count)))


def inputs(part: list[LogRow]) -> list[str]:
    return [row.messages[-1]["content"] for row in part]


def write(folder: Path, *lines: object) -> Path:
    file = folder / "log.jsonl"
    texts = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    file.write_bytes(b"\n".join(texts) + b"\n")
    return file


# ---- reading -----------------------------------------------------------------------------------


def test_both_kinds_of_lines_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {"messages": user("a"), "answer": "A", "other": 1},
        b"",
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "b", "weight": 0},
                {"role": "assistant", "content": [{"type": "text", "text": "B"}], "weight": 1},
            ]
        },
    )
    assert read_rows(file) == [
        LogRow(user("a"), "A"),
        LogRow([{"role": "system", "content": "s"}, {"role": "user", "content": "b"}], "B"),
    ]


def test_a_byte_order_mark_and_carriage_returns_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    line = orjson.dumps({"messages": user("a"), "answer": "A"})
    file.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line)
    assert len(read_rows(file)) == 2


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"messages": "' + SECRET.encode(), "not valid JSON"),
        (b"\xff\xfe" + SECRET.encode(), "not valid JSON"),
        ([SECRET], "not a JSON object"),
        ({"answer": SECRET}, "messages is not a list"),
        ({"messages": [], "answer": SECRET}, "messages is not a list"),
        ({"messages": [SECRET], "answer": SECRET}, "not every message"),
        ({"messages": [{"role": 1, "content": SECRET}], "answer": "a"}, "not every message"),
        ({"messages": user(SECRET), "answer": {"a": SECRET}}, "answer is not a string"),
        ({"messages": user(SECRET), "answer": None}, "answer is not a string"),
        ({"messages": user(SECRET), "answer": "  "}, "answer has no text"),
        ({"messages": user(SECRET)}, "no answer"),
        ({"messages": [{"role": "assistant", "content": SECRET}]}, "nothing before"),
        (
            {"messages": [*user(SECRET), {"role": "assistant", "tool_calls": [SECRET]}]},
            "assistant's message has no text",
        ),
        ({"messages": user(SECRET), "answer": "a", "tools": [SECRET]}, "has tools"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_quoted(
    tmp_path: Path, line: object, fault: str
) -> None:
    file = write(tmp_path, {"messages": user("fine"), "answer": "A"}, b"", line)
    with pytest.raises(BacktestError, match=r"log\.jsonl line 3: ") as caught:
        read_rows(file)
    assert fault in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_without_rows_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BacktestError, match="no rows"):
        read_rows(write(tmp_path, b"", b"  "))
    with pytest.raises(BacktestError, match="No such file"):
        read_rows(tmp_path / "absent.jsonl")
    with pytest.raises(BacktestError, match="cannot be read"):
        read_rows(tmp_path)


# ---- dealing out -------------------------------------------------------------------------------


def test_without_limit_and_test_file_the_end_is_the_test() -> None:
    layout = lay_out(numbered(100))
    assert inputs(layout.traffic) == [f"n{i}" for i in range(64)]
    assert inputs(layout.pool) == [f"n{i}" for i in range(64, 80)]
    assert inputs(layout.test) == [f"n{i}" for i in range(80, 100)]


def test_the_limit_is_the_number_of_rows_sent() -> None:
    layout = lay_out(numbered(100), limit=30)
    assert (len(layout.traffic), len(layout.pool), len(layout.test)) == (30, 50, 20)
    all_sent = lay_out(numbered(100), limit=500)
    assert (len(all_sent.traffic), len(all_sent.pool), len(all_sent.test)) == (80, 0, 20)


def test_a_test_file_leaves_the_whole_file_to_traffic_and_pool() -> None:
    layout = lay_out(numbered(100), test=numbered(7, "t"), limit=60)
    assert (len(layout.traffic), len(layout.pool), len(layout.test)) == (60, 40, 7)
    assert layout.duplicates == layout.conflicts == layout.left_out == layout.test_seen == 0


def test_the_first_answer_wins_and_conflicts_are_counted() -> None:
    file = [LogRow(user("a"), "one"), LogRow(user("a"), "two"), LogRow(user("b"), "B")]
    test = [LogRow(user("a"), "three"), LogRow(user("b"), "B"), LogRow(user("c"), "C")]
    layout = lay_out(file, test=test, limit=3)
    assert [row.answer for row in layout.traffic] == ["one", "one", "B"]
    assert [row.answer for row in layout.test] == ["one", "B", "C"]
    assert (layout.duplicates, layout.conflicts, layout.test_seen) == (3, 2, 2)


def test_inputs_of_traffic_or_test_are_not_in_the_pool_in_any_spelling() -> None:
    file = rows("sent", " SENT ", "Tested", "new", "NEW", "other")
    layout = lay_out(file, test=rows("tested"), limit=1)
    assert inputs(layout.pool) == ["new", "other"]
    assert layout.left_out == 3


@given(
    texts=st.lists(st.sampled_from("aAbBcCdDeEfF"), min_size=1, max_size=40),
    test_texts=st.none() | st.lists(st.sampled_from("aAbB gG"), min_size=1, max_size=5),
    limit=st.none() | st.integers(1, 50),
)
def test_pool_traffic_and_test_share_no_input(
    texts: list[str], test_texts: list[str] | None, limit: int | None
) -> None:
    test = None if test_texts is None else rows(*test_texts)
    layout = lay_out(rows(*texts), test=test, limit=limit)
    pool = [input_hash(row.messages) for row in layout.pool]
    elsewhere = {input_hash(row.messages) for row in (*layout.traffic, *layout.test)}
    assert len(pool) == len(set(pool))
    assert not elsewhere & set(pool)
    dealt = len(layout.traffic) + len(layout.pool) + layout.left_out
    assert dealt + (len(layout.test) if test is None else 0) == len(texts)
    assert len(layout.test) == (len(test) if test else max(1, round(len(texts) * 0.2)))


def test_messages_are_the_same_however_their_text_is_wrapped() -> None:
    plain: Messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    wrapped: Messages = [
        {"role": "developer", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": [{"type": "text", "text": "u"}], "name": None},
    ]
    assert messages_key(plain) == messages_key(wrapped)
    image = {"type": "image_url", "image_url": {"url": "x"}}
    others: list[Messages] = [
        user("u"),
        [plain[0], {"role": "user", "content": "U"}],
        [plain[0], {"role": "user", "content": [{"type": "text", "text": "u"}, image]}],
        [plain[0], {"role": "user", "content": "u", "name": "n"}],
        [plain[1], plain[0]],
    ]
    assert len({messages_key(m) for m in (plain, *others)}) == 6
