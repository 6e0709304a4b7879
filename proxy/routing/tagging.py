"""Which task a request belongs to: header, then metadata, then the key's default.

Pure functions. The tag is removed before a teacher sees the request.
"""

from __future__ import annotations

from typing import Any

from proxy.http.errors import ApiError, bad_request
from store.jsontext import JsonObject
from store.settings.config import TAG

TASK_HEADER = b"x-understudy-task"
METADATA_KEY = "task"


def task_of(header: bytes | None, metadata: JsonObject | None, key_task: str | None) -> str | None:
    """The request's task, None for an untagged one. Raises ApiError 400 on an invalid tag.

    `key_task` is the default of the key that the client used.
    """
    if header is not None:
        return _checked(header.decode("latin-1").strip(), "header X-Understudy-Task")
    if metadata and METADATA_KEY in metadata:
        return _checked(metadata[METADATA_KEY], "metadata.task")
    return key_task


def without_tag(body: JsonObject) -> JsonObject | None:
    """The body without its tag; None if it has none.

    OpenAI refuses `metadata` without `store`, so metadata with only the tag is removed as a whole.
    Other keys stay.
    """
    metadata = body.get("metadata")
    if not metadata or METADATA_KEY not in metadata:
        return None
    others = {name: value for name, value in metadata.items() if name != METADATA_KEY}
    if others:
        return {**body, "metadata": others}
    return {name: value for name, value in body.items() if name != "metadata"}


def _checked(tag: Any, where: str) -> str:
    if isinstance(tag, str) and TAG.fullmatch(tag):
        return tag
    raise _invalid(where)


def _invalid(where: str) -> ApiError:
    return bad_request(
        f"Invalid task tag in {where}: expected 1 to 64 of a-z, 0-9, '.', '_' and '-', "
        "beginning with a letter or a digit.",
        param="metadata.task" if where == "metadata.task" else None,
        code="invalid_task",
    )
