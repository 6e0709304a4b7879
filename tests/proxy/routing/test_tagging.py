"""Which task a request belongs to, and what of it the teacher sees."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.errors import ApiError
from proxy.routing.tagging import task_of, without_tag


@pytest.mark.parametrize(
    ("header", "metadata", "key_task", "expected"),
    [
        (None, None, None, None),
        (None, {}, None, None),
        (None, {"user": "u1"}, None, None),
        (None, None, "from-key", "from-key"),
        (None, {"task": "from-body"}, None, "from-body"),
        (None, {"task": "from-body"}, "from-key", "from-body"),
        (None, {"user": "u1"}, "from-key", "from-key"),
        (b"from-header", None, None, "from-header"),
        (b"from-header", {"task": "from-body"}, "from-key", "from-header"),
        (b" from-header ", None, None, "from-header"),
        (b"a", None, None, "a"),
        (b"0", None, None, "0"),
        (b"v1.2_triage-en", None, None, "v1.2_triage-en"),
        (b"a" * 64, None, None, "a" * 64),
    ],
)
def test_header_then_metadata_then_key(header, metadata, key_task, expected):
    assert task_of(header, metadata, key_task) == expected


@pytest.mark.parametrize(
    "tag",
    ["", " ", "A", "-a", ".a", "_a", "a b", "a/b", "../a", "a\n", "ä", "a" * 65, "a\0"],
)
def test_an_invalid_tag_is_a_400_that_says_so(tag):
    for header, metadata in [(tag.encode(), None), (None, {"task": tag})]:
        if header is not None and tag.strip() != tag:
            continue  # white space around a header's value is not part of it
        with pytest.raises(ApiError) as caught:
            task_of(header, metadata, "from-key")
        assert caught.value.status == 400
        assert caught.value.code == "invalid_task"
        assert "a-z" in caught.value.message


@pytest.mark.parametrize("tag", [None, 1, True, ["a"], {"a": 1}])
def test_a_tag_is_a_string(tag):
    with pytest.raises(ApiError) as caught:
        task_of(None, {"task": tag}, None)
    assert (caught.value.status, caught.value.param) == (400, "metadata.task")


@given(st.text(max_size=70))
def test_only_tags_pass(text):
    fits = re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", text) is not None
    try:
        assert task_of(None, {"task": text}, None) == text
        assert fits
    except ApiError:
        assert not fits


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"task": "t"}, "gone"),
        ({"task": "t", "user": "u1"}, {"user": "u1"}),
        ({"user": "u1"}, "as it was"),
        ({}, "as it was"),
        (None, "as it was"),
    ],
)
def test_the_tag_is_removed(metadata, expected):
    body = {"model": "m", "metadata": metadata, "store": True}
    before = repr(body)
    stripped = without_tag(body)
    assert repr(body) == before  # the trace keeps the body as it was sent
    if expected == "as it was":
        assert stripped is None
    elif expected == "gone":
        assert stripped == {"model": "m", "store": True}
    else:
        assert stripped == {"model": "m", "metadata": expected, "store": True}


def test_a_body_without_metadata_is_left_alone():
    assert without_tag({"model": "m"}) is None
