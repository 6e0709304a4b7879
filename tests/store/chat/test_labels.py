"""The names under which the labels of an answer are counted, protected and forgotten."""

from __future__ import annotations

import pytest

from store.chat.labels import field_of, labels_of

CALLS = '[{"name": "refund", "arguments": {"id": 1}}, {"name": "mail", "arguments": {}}]'


@pytest.mark.parametrize(
    ("output", "answer", "labels"),
    [
        ("label", " yes\n", {"yes"}),
        ("label", "Cafe\u0301", {"Caf\u00e9"}),
        ("text", "yes", set()),
        ("tools", CALLS, {"refund", "mail"}),
        ("tools", '{"name": "refund", "arguments": {}}', {"refund"}),
        ("tools", '{"content": "For how many?"}', {"none"}),
        ("tools", "no JSON", set()),
        ("json", '{"urgent": true, "team": "sales"}', {"urgent=true", "team=sales"}),
        ("json", '{"a": {"b": null, "c": 1.5}}', {"a.b=null", "a.c=1.5"}),
        ("json", '{"tags": ["x", "y", {"k": 2}]}', {"tags=x", "tags=y", "tags.k=2"}),
        ("json", '["x", " x "]', {"=x"}),
        ("json", "{broken", set()),
    ],
)
def test_labels_of_an_answer_by_its_kind(output: str, answer: str, labels: set[str]) -> None:
    assert labels_of(answer, output) == labels  # type: ignore[arg-type]


def test_a_value_with_an_equals_sign_keeps_its_field() -> None:
    [label] = labels_of('{"formula": "a=b"}', "json")
    assert (label, field_of(label)) == ("formula=a=b", "formula")
