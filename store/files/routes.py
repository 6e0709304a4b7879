"""The routes file: how the control plane tells the data plane what to do with each task.

One JSON file, replaced as a whole by a rename, so a reader sees the old one or the new one. It is
derived from the latest promotions in the database, and can be written again from there. A version
of it is known by the digest of its bytes, which each proxy reports, so that the status can say
which routes the proxies have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from store.errors import StoreError
from store.files.atomic import read_regular, write_atomically
from store.records import Route, TermsOfService

FORMAT = 2  # 1: the terms of service were fields of the route itself

_TERMS = frozenset(field.name for field in fields(TermsOfService))


def _with_terms(route: Any) -> Any:
    """The route as it is written now: a former one has its terms of service among its fields."""
    if not isinstance(route, dict) or "terms" in route:
        return route
    terms = {name: value for name, value in route.items() if name in _TERMS}
    return {**{name: v for name, v in route.items() if name not in _TERMS}, "terms": terms}


# A route as JSON, whichever version wrote it: in routes.json, in a promotion, beside a run.
StoredRoute = Annotated[Route, BeforeValidator(_with_terms)]
ROUTE: TypeAdapter[Route] = TypeAdapter(StoredRoute)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """What stands in the file. Names that a newer writer added are skipped."""

    format: int
    at: float  # when it was published
    routes: dict[str, StoredRoute]


_DOCUMENT = TypeAdapter(_Document)


MAX_BYTES = 1 << 26  # of the file; routes are some KB each
NO_ROUTES = 0  # the digest of a file that is not there


def digest_of(content: bytes) -> int:
    """48 bits, which a float holds: see store.process.workers."""
    return int.from_bytes(blake2b(content, digest_size=6).digest(), "big")


def publish_routes(path: Path, routes: Mapping[str, Route], *, at: float) -> int:
    """Replaces the routes file and returns its digest.

    Raises StoreError, and leaves the old file, when it cannot.
    """
    document = {
        "format": FORMAT,
        "at": at,
        "routes": {task: asdict(route) for task, route in sorted(routes.items())},
    }
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise StoreError(f"{path}: routes cannot be published: {error.strerror}") from None
    return digest_of(content)


def published_digest(path: Path) -> int | None:
    """The digest of the file as it is now; None when it cannot be read."""
    try:
        return digest_of(read_regular(path, MAX_BYTES))
    except FileNotFoundError:
        return NO_ROUTES
    except OSError:
        return None


def read_routes(path: Path) -> dict[str, Route]:
    """The published routes by task; none when there is no file yet.

    Raises StoreError when the file cannot be read or is not a routes file.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Route], int]:
    """The routes and the digest of the file."""
    try:
        content = read_regular(path, MAX_BYTES)
        document = _DOCUMENT.validate_python(orjson.loads(content))
    except FileNotFoundError:
        return {}, NO_ROUTES
    except OSError as error:
        raise StoreError(f"{path}: routes cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise StoreError(f"{path}: not a routes file: not JSON") from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the whole file"
        raise StoreError(f"{path}: not a routes file: {where}: {fault['msg']}") from None
    if document.format > FORMAT:
        raise StoreError(f"{path}: written by a newer version (format {document.format})")
    for task, route in document.routes.items():
        if route.task != task:
            raise StoreError(f"{path}: the route of task {task} speaks of another task")
        if route.target == "student" and not route.base_url:
            raise StoreError(f"{path}: the route of task {task} names no student to ask")
    return document.routes, digest_of(content)


class RoutesFile:
    """The routes as last read, for a reader that polls.

    `routes` are the last good ones, `digest` is that of their file; `error` says why a later file
    could not be used, else None.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_state: tuple[int, ...] | None = None
        self.digest = NO_ROUTES
        self.routes: dict[str, Route] = {}
        self.error: str | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Reads the file again if it changed: one `stat` when it did not. Whether routes changed.

        An unreadable file leaves the routes as they are; a missing file means none.
        """
        try:
            stat = self._path.lstat()
            state = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)
        except FileNotFoundError:
            state = None
        except OSError as error:
            self.error = f"{self._path}: routes cannot be read: {error.strerror}"
            return False
        if state == self._file_state:
            return False
        try:
            routes, digest = _read(self._path)
        except StoreError as error:
            self._file_state, self.error = state, str(error)
            return False
        changed = routes != self.routes
        self._file_state, self.error = state, None
        self.routes, self.digest = routes, digest
        return changed
