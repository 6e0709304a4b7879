"""Who may use the proxy: nobody but this machine, or whoever brings a key of `server.keys`."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import urlsplit

from proxy.http.asgi import Headers, header
from proxy.http.errors import foreign_page, unauthorized
from store.settings.config import ApiKey

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Client:
    """Whom a request comes from."""

    key_hash: str | None  # 16 hex digits; None where no keys are asked for
    task: str | None  # the key's default task
    name: str = "local"  # the key's name in the config; `local` where no keys are asked for
    store: bool = True  # whether content of its requests may be kept


_ANYONE = Client(None, None)


class Keys:
    """The keys that clients may use. Only hashes are kept."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._known: list[tuple[bytes, Client]] = []
        for entry in keys:
            digest = _digest(entry)
            self._known.append(
                (digest, Client(hash_of(entry), entry.task, entry.name, entry.store))
            )

    def authenticate(self, headers: Headers, *, browser: bool = False) -> Client:
        """The client that sent these headers. Raises ApiError 401 or 403.

        A key is a bearer token (OpenAI's way) or stands in `x-api-key` (Anthropic's); of two good
        ones the bearer token holds.
        Hashes are compared, all of them, each in constant time: how long it takes says nothing.
        `browser`: the key may also be the password of HTTP Basic, which browsers ask a user for.
        """
        if not self._known:
            _refuse_foreign_page(headers)
            return _ANYONE
        presented = [sha256(key).digest() for key in _presented(headers, browser=browser)]
        if not presented:
            raise unauthorized(presented=False, browser=browser)
        found: Client | None = None
        for shown in reversed(presented):
            for digest, client in self._known:
                if compare_digest(digest, shown):
                    found = client
        if found is None:
            raise unauthorized(presented=True, browser=browser)
        return found


def hash_of(entry: ApiKey) -> str:
    """The `Client.key_hash` of whoever brings this key."""
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
    """The password of HTTP Basic, empty when there is none. RFC 7617."""
    try:
        return b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _refuse_foreign_page(headers: Headers) -> None:
    """Without keys, any web page that a user opens could spend money through the loopback port."""
    origin = header(headers, b"origin")
    if origin is None:
        return
    try:
        host = urlsplit(origin.decode("latin-1")).hostname
    except ValueError:
        host = None
    if host not in _LOOPBACK:
        raise foreign_page()
