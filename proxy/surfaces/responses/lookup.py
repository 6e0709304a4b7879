"""`/v1/responses/…`: what clients do with a response after they got it.

    GET    /v1/responses/ID               the response
    DELETE /v1/responses/ID
    GET    /v1/responses/ID/input_items   its input, in pages
    POST   /v1/responses/ID/cancel
    POST   /v1/responses/input_tokens     of a request that may name a response
    POST   /v1/responses/compact

Students' responses are answered for here. All others are the teacher's: passed through.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs

import orjson

from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.http.asgi import JSON, Handler, Message, Receive, Scope, Send, header, respond
from proxy.http.beside import LARGE, Beside
from proxy.http.body import read_decoded
from proxy.http.errors import ApiError, bad_request, unknown_path
from proxy.http.json_body import parse_object
from proxy.surfaces.responses.stored import StoredResponses, listed_input, our_name_in
from store.files.responses import KeptResponse, trace_of
from store.jsontext import JsonObject

PREFIX = "/v1/responses/"
_REQUESTS = ("input_tokens", "compact")
_MAX_ITEMS = 100  # in a page
_LIMIT = re.compile(r"[0-9]{1,9}")  # Python reads no number of many thousand digits
_DEFAULT_LIMIT = "20"


class ResponsesLookup:
    """Answers for kept responses."""

    def __init__(
        self,
        *,
        keys: Keys,
        limits: Limits,
        body_limit: int,
        stored: StoredResponses,
        passthrough: Handler,
        beside: Beside,
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._body_limit = body_limit
        self._stored = stored
        self._passthrough = passthrough
        self._beside = beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError."""
        name, _, what = scope["path"].removeprefix(PREFIX).rstrip("/").partition("/")
        method: str = scope["method"]
        if trace_of(name) is not None:
            await respond(send, 200, [JSON], self._answer(scope, method, name, what))
        elif method == "POST" and name in _REQUESTS and not what and _is_json(scope):
            await self._passthrough(scope, await self._resolved(scope, receive), send)
        else:
            await self._passthrough(scope, receive, send)

    def _answer(self, scope: Scope, method: str, name: str, what: str) -> bytes:
        """The answer about a response of ours. Raises ApiError."""
        key_hash = self._keys.authenticate(scope["headers"]).key_hash
        kept = self._stored.find(name, key_hash)
        if kept is None:
            raise ApiError(404, f"Response with id '{name}' not found.")
        query = {key: values[-1] for key, values in parse_qs(_query(scope)).items()}
        if (method, what) == ("GET", ""):
            if query.get("stream") == "true":
                raise bad_request("Only responses made with background=true can be streamed.")
            return orjson.dumps(kept.response)
        if (method, what) == ("GET", "input_items"):
            return orjson.dumps(_page(kept, query))
        if (method, what) == ("DELETE", ""):
            self._stored.forget(name, key_hash)
            return orjson.dumps({"id": name, "object": "response", "deleted": True})
        if (method, what) == ("POST", "cancel"):
            raise bad_request("Cannot cancel a synchronous response.")
        raise unknown_path(method, scope["path"])

    async def _resolved(self, scope: Scope, receive: Receive) -> Receive:
        """The body, with what our names in it stand for in their place."""
        client = self._keys.authenticate(scope["headers"])
        with self._limits.upload(client) as arrived:  # from then on the passthrough counts it
            raw = await read_decoded(scope, receive, self._body_limit, arrived=arrived)
            if len(raw) > LARGE:
                raw = await self._beside.run(self._with_names_resolved, raw, client.key_hash)
            else:
                raw = self._with_names_resolved(raw, client.key_hash)

        async def again() -> Message:
            return {"type": "http.request", "body": raw, "more_body": False}

        return again

    def _with_names_resolved(self, raw: bytes, key_hash: str | None) -> bytes:
        """The same body where it has no name of ours. Raises ApiError."""
        try:
            body = parse_object(raw)
        except ApiError:
            body = {}  # the teacher says what is wrong with it
        if our_name_in(body) is None:
            return raw
        return orjson.dumps(self._stored.resolved(body, key_hash))


def _is_json(scope: Scope) -> bool:
    return (header(scope["headers"], b"content-type") or b"").startswith(b"application/json")


def _query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return query.decode("latin-1")


def _page(kept: KeptResponse, query: dict[str, str]) -> JsonObject:
    """A page of the input items. Raises ApiError."""
    limit, after = query.get("limit", _DEFAULT_LIMIT), query.get("after")
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= _MAX_ITEMS:
        raise bad_request(
            f"Invalid 'limit': expected an integer from 1 to {_MAX_ITEMS}.", param="limit"
        )
    items = listed_input(kept)
    if query.get("order", "desc") != "asc":
        items.reverse()
    if after is not None:
        names = [item["id"] for item in items]
        if after not in names:
            raise ApiError(404, f"Item with id '{after}' not found.", param="after")
        items = items[names.index(after) + 1 :]
    page = items[: int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > len(page),
    }
