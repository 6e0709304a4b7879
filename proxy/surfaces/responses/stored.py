"""Students' responses, kept for clients that come back to them.

A student's response is kept unless its request has `store: false`. A later request that names it,
as `previous_response_id` or by one of its items, goes to the teacher. As the teacher does not know
it, the name is replaced by the request and the answer that it stands for. Other ids are the
teacher's and stay. Only the key that made a response can use it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from proxy.http.errors import ApiError, bad_request
from proxy.http.json_body import wrong_type
from store.files.responses import (
    DAY_S,
    HOUR_S,
    KeptResponse,
    forget_responses,
    keep_response,
    own_id,
    read_response,
    sweep_responses,
    trace_of,
)
from store.jsontext import JsonObject
from store.records import Content

_FIRST_INPUT = 0x10000  # the number of the first input item; output items count from 0
# Kind of item → the beginning of its id, as OpenAI names them.
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}

log = logging.getLogger(__name__)


class StoredResponses:
    """The folder of kept responses, shared by all workers."""

    def __init__(self, folder: Path, keep_days: float) -> None:
        """`keep_days`: 0 keeps none."""
        self._folder = folder
        self._keep_s = keep_days * DAY_S
        self._swept_at = 0.0

    # ---- while a request is answered -------------------------------------------------------------

    def resolved(self, body: JsonObject, key_hash: str | None) -> JsonObject:
        """The body with what our names stand for in their place. Raises ApiError."""
        inputs, previous = body.get("input"), body.get("previous_response_id")
        if not isinstance(inputs, str | list | None):
            raise wrong_type("input", "a string or an array of input items", inputs)
        items = [
            self._item(item, key_hash) if _names_ours(item) else item for item in _as_items(inputs)
        ]
        if isinstance(previous, str) and trace_of(previous) is not None:
            kept = self.find(previous, key_hash)
            if kept is None:
                raise bad_request(
                    f"Previous response with id '{previous}' not found.",
                    param="previous_response_id",
                    code="previous_response_not_found",
                )
            items = [*kept.input, *map(_for_teacher, kept.response["output"]), *items]
            body = {name: v for name, v in body.items() if name != "previous_response_id"}
        return {**body, "input": items}

    def may_keep(self, body: JsonObject, content: Content) -> bool:
        """Whether a student's response to `body` may be kept, or does not have to be.

        Content that the log may not hold unchanged is not kept here either.
        """
        return body.get("store") is False or (self._keep_s > 0 and content == "full")

    def keep(
        self,
        response: bytes,
        body: JsonObject,
        content: Content,
        *,
        trace_id: str,
        key_hash: str | None,
    ) -> bool:
        """Keeps a student's response if its client wants that; False if it cannot be kept."""
        if body.get("store") is False:
            return True
        if not self.may_keep(body, content):
            return False
        try:
            keep_response(self._folder, trace_id, response, _as_items(body.get("input")), key_hash)
        except OSError as error:
            log.error("response_not_kept trace=%s error=%s", trace_id, type(error).__name__)
            return False
        return True

    # ---- later -----------------------------------------------------------------------------------

    def find(self, response_id: str, key_hash: str | None) -> KeptResponse | None:
        """A response of this key by its id, or None."""
        trace_id = trace_of(response_id)
        if trace_id is None or own_id("resp", trace_id) != response_id:
            return None
        return self._of(trace_id, key_hash)

    def forget(self, response_id: str, key_hash: str | None) -> bool:
        """Deletes a response; False when there is none of this key."""
        trace_id = trace_of(response_id)
        if trace_id is None or self.find(response_id, key_hash) is None:
            return False
        return forget_responses(self._folder, [trace_id]) > 0

    def sweep_is_due(self) -> bool:
        """Whether to call `sweep` now: true once an hour."""
        due = not 0 <= time.time() - self._swept_at < HOUR_S  # also after the clock was set back
        if due:
            self._swept_at = time.time()
        return due and self._folder.is_dir()

    def sweep(self) -> None:
        """Deletes expired responses. Blocks; not for the event loop."""
        sweep_responses(self._folder, keep_s=self._keep_s)

    def _of(self, trace_id: str, key_hash: str | None) -> KeptResponse | None:
        kept = read_response(self._folder, trace_id, keep_s=self._keep_s)
        return kept if kept is not None and kept.key_hash == key_hash else None

    def _item(self, reference: JsonObject, key_hash: str | None) -> JsonObject:
        """The referenced item, in the form for the teacher. Raises ApiError."""
        name: str = reference["id"]
        trace_id = trace_of(name)
        kept = None if trace_id is None else self._of(trace_id, key_hash)
        if kept is not None:
            for item in kept.response["output"]:
                if item["id"] == name:
                    return _for_teacher(item)
            for sent, listed in zip(kept.input, listed_input(kept), strict=True):
                if listed["id"] == name:
                    return sent
        raise ApiError(404, f"Item with id '{name}' not found.", param="input")


def our_name_in(body: JsonObject) -> str | None:
    """The first of our responses or items that a request names; None if it names none."""
    previous, items = body.get("previous_response_id"), body.get("input")
    if isinstance(previous, str) and trace_of(previous) is not None:
        return previous
    if isinstance(items, list):
        return next((item["id"] for item in items if _names_ours(item)), None)
    return None


def listed_input(kept: KeptResponse) -> list[JsonObject]:
    """The input items as the API lists them: each with an id, a message with parts."""
    trace_id = trace_of(kept.response["id"]) or ""
    listed = []
    for number, item in enumerate(kept.input, _FIRST_INPUT):
        kind = item.get("type") or "message"
        name = item.get("id") or own_id(_PREFIXES.get(kind, "item"), trace_id, number)
        entry = {"id": name, "type": kind, "status": "completed", **item}
        if kind == "message" and isinstance(item.get("content"), str):
            part_type = "output_text" if item.get("role") == "assistant" else "input_text"
            part = {"type": part_type, "text": item["content"]}
            entry["content"] = [part | ({"annotations": []} if part_type == "output_text" else {})]
        listed.append(entry)
    return listed


def _as_items(inputs: Any) -> list[Any]:
    if isinstance(inputs, str):
        return [{"role": "user", "content": inputs}]
    return list(inputs or ())


def _names_ours(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("type") != "item_reference":
        return False
    return isinstance(item.get("id"), str) and trace_of(item["id"]) is not None


def _for_teacher(item: JsonObject) -> JsonObject:
    """A student's output item as input, without the id that the teacher does not know."""
    if item["type"] == "message":
        text = "".join(part["text"] for part in item["content"])
        return {"role": "assistant", "content": text}
    return {name: value for name, value in item.items() if name not in ("id", "status")}
