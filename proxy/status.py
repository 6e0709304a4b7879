"""/health and /v1/models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

import orjson

from proxy.access.keys import Keys
from proxy.http.asgi import JSON, Receive, Scope, Send, respond
from proxy.passthrough import below_v1
from proxy.teacher import Teacher
from store.files.journal import JournalWriter
from store.files.routes import RoutesFile
from store.process.control_page import ControlPage
from store.process.workers import Roster


class Health:
    """`GET /health`: 200 as long as requests are served; its status may be `degraded`.

    Any of several workers answers for all: `journal` is its own, `workers` lists all of them as of
    the last second (store.process.workers). It needs no key, so faults name files relative to the
    data folder.
    """

    def __init__(
        self,
        *,
        version: str,
        journal: JournalWriter,
        routes: RoutesFile,
        data_dir: Path,
        control_page: ControlPage | None = None,
    ) -> None:
        self._version = version
        self._journal = journal
        self._routes = routes
        # as it is in the config, and as it is on the disk
        self._data_dirs = (f"{data_dir.absolute()}/", f"{data_dir}/")
        self._control_page = control_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        journal = self._journal.health
        healthy = journal.ok and journal.lost == 0 and self._routes.error is None
        students = [r.task for r in self._routes.routes.values() if r.target == "student"]
        payload: dict[str, object] = {
            "status": "ok",
            "version": self._version,
            "journal": asdict(journal) | {"error": self._without_folder(journal.error)},
            "routes": {
                "error": self._without_folder(self._routes.error),
                "students": len(students),
            },
        }
        if self._control_page is not None:
            control = self._control_page.state
            healthy = healthy and control.alive and control.collecting and not control.skipped
            healthy = healthy and not control.fault
            payload["control_plane"] = {
                "alive": control.alive,
                "collecting": control.collecting,
                "set_aside": control.set_aside,
                "skipped": control.skipped,
                "error": self._without_folder(control.fault) or None,
            }
        state = scope.get("state") or {}
        roster: Roster | None = state.get("roster")
        if roster is not None:
            workers = list(roster)
            healthy = healthy and all(w.alive and w.journal_ok and w.lost == 0 for w in workers)
            payload["worker"] = state["worker"]
            payload["workers"] = [asdict(w) for w in workers]
        if not healthy:
            payload["status"] = "degraded"
        await respond(send, 200, [JSON], orjson.dumps(payload))

    def _without_folder(self, fault: str | None) -> str | None:
        for folder in self._data_dirs:
            fault = fault and fault.replace(folder, "")
        return fault


class Models:
    """`GET /v1/models` and `/v1/models/NAME`: the names of `model_list`, in OpenAI's shape.

    For a wildcard, the models that its endpoint lists.
    """

    def __init__(self, *, keys: Keys, teacher: Teacher, created: int) -> None:
        self._keys = keys
        self._teacher = teacher
        self._created = created  # seconds since the epoch; OpenAI's clients expect it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError."""
        self._keys.authenticate(scope["headers"])
        name = unquote(below_v1({**scope, "query_string": b""})).removeprefix("/models").strip("/")
        if name:
            self._teacher.named(name)
            payload = self._entry(name)
        else:
            names = self._teacher.model_names
            listed = {name: self._entry(name) for name in names}
            for entry in await self._teacher.wildcard_models():
                listed.setdefault(str(entry["id"]), entry)
            payload = {"object": "list", "data": list(listed.values())}
        await respond(send, 200, [JSON], orjson.dumps(payload))

    def _entry(self, name: str) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": self._teacher.named(name).provider,
        }
