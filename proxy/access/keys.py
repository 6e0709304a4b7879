"""Who may use the proxy: this machine only, or clients with a key of `server.keys`."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import get_args
from urllib.parse import urlsplit

from proxy.access.cors import Cors
from proxy.http.asgi import Headers, header
from proxy.http.errors import foreign_host, foreign_page, missing_right, unauthorized
from store.settings.config import ApiKey, Right

ALL_RIGHTS: frozenset[Right] = frozenset(get_args(Right))


@dataclass(frozen=True, slots=True)
class Client:
    """The client that sent a request."""

    key_hash: str | None  # 16 hex digits; None without `server.keys`
    task: str | None  # the key's default task
    name: str = "local"  # the key's name in the config; `local` without `server.keys`
    store: bool = True  # whether content of its requests may be kept
    may: frozenset[Right] = ALL_RIGHTS


_ANYONE = Client(None, None)


class Keys:
    """The keys that clients may use. Only hashes are kept."""

    def __init__(
        self, keys: Sequence[ApiKey], *, operator: str | None = None, cors: Cors | None = None
    ) -> None:
        """`operator`: a key with all rights for the command line of this machine's own user.

        `cors`: the pages that may ask although they are not this machine's own.
        """
        self._cors = cors or Cors(())
        self._known: list[tuple[bytes, Client]] = []
        for entry in keys:
            client = Client(
                hash_of(entry), entry.task, entry.name, entry.store, frozenset(entry.may)
            )
            self._known.append((_digest(entry), client))
        if self._known and operator is not None:
            digest = sha256(operator.encode()).digest()
            self._known.append((digest, Client(digest.hex()[:16], None)))

    def check_host(self, headers: Headers) -> None:
        """Without keys, refuses requests for another host than this machine. Raises ApiError 403.

        A page can have its own name resolve to 127.0.0.1 (DNS rebinding) and then read answers as
        its own origin's. Its requests still name that host. What sends no Host is no browser.
        """
        if self._known:
            return
        for name, value in headers:
            if name == b"host" and not _is_loopback(value):
                raise foreign_host()

    def authenticate(
        self, headers: Headers, *, needs: Right | None = "use", browser: bool = False
    ) -> Client:
        """The client that sent these headers. Raises ApiError 401, or 403 without this right.

        `needs`: None where any key will do.

        A key is a bearer token (as OpenAI's clients send it) or the value of `x-api-key` (as
        Anthropic's do); of two valid keys the bearer token counts. All hashes are compared, each in
        constant time, so that the time reveals nothing. `browser`: the key may also be the password
        of HTTP Basic, which browsers ask a user for.
        """
        if not self._known:
            self._refuse_foreign_page(headers)
            return _ANYONE
        presented = [sha256(key).digest() for key in _presented(headers, browser=browser)]
        if not presented:
            raise unauthorized(presented=False, browser=browser)
        known: Client | None = None
        for one in reversed(presented):
            for digest, client in self._known:
                if compare_digest(digest, one):
                    known = client
        if known is None:
            raise unauthorized(presented=True, browser=browser)
        if needs is not None and needs not in known.may:
            raise missing_right(known.name, needs)
        return known

    def _refuse_foreign_page(self, headers: Headers) -> None:
        """Without keys, any web page that a user opens could spend money through this port."""
        origin = header(headers, b"origin")
        if origin is None or self._cors.allows(origin):
            return
        if not _is_loopback(origin.partition(b"://")[2]):
            raise foreign_page()


def hash_of(entry: ApiKey) -> str:
    """The `Client.key_hash` of clients with this key."""
    return _digest(entry).hex()[:16]


def _digest(entry: ApiKey) -> bytes:
    return sha256(entry.key.get_secret_value().encode()).digest()


def _presented(headers: Headers, *, browser: bool) -> list[bytes]:
    """The keys in the headers: at most two."""
    scheme, _, key = (header(headers, b"authorization") or b"").partition(b" ")
    key = key.strip()
    if browser and scheme.lower() == b"basic":
        key = _password(key)
    elif scheme.lower() != b"bearer":
        key = b""
    other = (header(headers, b"x-api-key") or b"").strip()
    return [one for one in (key, other) if one]


def _password(credentials: bytes) -> bytes:
    """The password of HTTP Basic (RFC 7617), empty if there is none."""
    try:
        return b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


@lru_cache(maxsize=256)
def _is_loopback(host: bytes) -> bool:
    """Whether a host, with its port or without, is a name or an address of this machine's own."""
    try:
        parts = urlsplit("//" + host.decode("ascii"))
        name, _ = parts.hostname, parts.port  # which raises where it is not a number
    except ValueError:
        return False
    if name is None or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        return False
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
