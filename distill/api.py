"""The status API: what the control plane knows, as JSON, with an OpenAPI page and a status page.

It listens on loopback for the proxy only, which checks the clients' keys and sends the token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from swagger_ui_bundle import swagger_ui_path

from distill.commands import Commands
from distill.forget.api import forget_route
from distill.forget.forgetting import Forgetter
from distill.status.metrics import page as metrics_page
from distill.status.page_policy import policy_of
from distill.status.status import Status, StoreHealth, TaskStatus
from store.errors import CommandRefused, StoreError
from store.records import Command

PAGE = Path(__file__).parent / "status" / "status.html"
# no control characters, and none that end a line or change the direction of text
PLAIN_TEXT = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$"


class CommandOrder(BaseModel):
    """A command by hand."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500, pattern=PLAIN_TEXT, description="why, in words")
    force: bool = Field(default=False, description="promote alone: past the gate")


class CommandResult(BaseModel):
    """The effect of a command."""

    done: str = Field(description="in a sentence")
    status: TaskStatus = Field(description="of the task, after it")


def build_api(
    *,
    token: str,
    status: Callable[[], Awaitable[Status]],
    task_status: Callable[[str], Awaitable[TaskStatus | None]],
    commands: Commands,
    forgetter: Forgetter,
    clock: Callable[[], float],
    version: str,
    report_routes: Callable[[Sequence[int]], None] = lambda _: None,
) -> FastAPI:
    """The FastAPI application. `status` and `task_status` read the store when they are called.

    `report_routes` gets the digests of the routes that the proxies have, with each request.

    Who asks stands in a header that the proxy alone can set.
    """

    def json_only(request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, "send JSON, with Content-Type: application/json")

    api = _pages(token=token, status=status, version=version, report_routes=report_routes)

    @api.exception_handler(StoreError)
    async def not_now(_: Request, error: StoreError) -> JSONResponse:
        """What the database cannot give now."""
        return JSONResponse({"detail": str(error)}, 503)

    @api.get("/distill/status/{task}", tags=["status"])
    async def one_task(task: str) -> TaskStatus:
        """One task. 404 when no request was tagged so yet."""
        one = await task_status(task)
        if one is None:
            raise HTTPException(404, "no request has had this task yet")
        return one

    @api.post(
        "/distill/tasks/{task}/{command}",
        tags=["by hand"],
        dependencies=[Depends(json_only)],
        responses={409: {"description": "The task does not allow it now; `detail` says why."}},
    )
    async def by_hand(
        task: str,
        command: Command,
        order: CommandOrder,
        x_understudy_actor: Annotated[str, Header(include_in_schema=False)] = "local",
    ) -> CommandResult:
        """Pause, resume, promote, demote or retrain a task. It takes effect at once.

        The command is recorded with its time, its reason and the name of the key that gave it.
        """
        if order.force and command != "promote":
            raise HTTPException(422, "force is for promote alone")
        if await task_status(task) is None:
            raise HTTPException(404, "no request has had this task yet")
        try:
            done = await commands.do(
                task,
                command,
                actor=unquote(x_understudy_actor),
                reason=order.reason.strip(),
                force=order.force,
            )
        except CommandRefused as refused:
            raise HTTPException(409, f"cannot {command} {task}: {refused}") from None
        now = await task_status(task)
        assert now is not None, "a task that was there is gone"
        return CommandResult(done=done, status=now)

    api.include_router(forget_route(forgetter, clock), dependencies=[Depends(json_only)])
    return api


def _with_policy(html: str) -> HTMLResponse:
    return HTMLResponse(html, headers={"content-security-policy": policy_of(html)})


def build_api_without_store(
    *, token: str, fault: str, clock: Callable[[], float], version: str
) -> FastAPI:
    """The same while the database cannot be opened: its status says so, and all else is a 503."""

    async def status() -> Status:
        store = StoreHealth(ok=False, error=fault, collected=0, damaged=0)
        return Status(version=version, at=clock(), store=store, students={}, tasks=[])

    api = _pages(token=token, status=status, version=version)

    @api.api_route(
        "/distill/{rest:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False
    )
    async def not_now(rest: str) -> None:
        raise HTTPException(503, fault)

    return api


def _pages(
    *,
    token: str,
    status: Callable[[], Awaitable[Status]],
    version: str,
    report_routes: Callable[[Sequence[int]], None] = lambda _: None,
) -> FastAPI:
    """An API with the pages, the status of all, and the metrics."""

    def proxy_only(
        x_understudy_token: Annotated[str, Header()] = "",
        x_understudy_routes: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> None:
        if not hmac.compare_digest(x_understudy_token.encode(), token.encode()):
            raise HTTPException(403, "ask through the proxy")
        if x_understudy_routes:
            report_routes([int(digest, 16) for digest in x_understudy_routes.split(",")])

    api = FastAPI(
        title="Understudy",
        summary="What each task's student has learned, what it may answer, and why.",
        version=version,
        openapi_url="/distill/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(proxy_only)],
    )
    api.openapi_version = "3.0.3"  # the newest that the packaged Swagger UI shows
    # the page's script and style come from a package, so that it also works without the internet
    api.mount("/distill/assets", StaticFiles(directory=str(swagger_ui_path)), name="assets")

    @api.get("/distill", include_in_schema=False)
    async def page() -> HTMLResponse:
        return _with_policy(PAGE.read_text(encoding="utf-8"))

    @api.get("/distill/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        shown = get_swagger_ui_html(
            openapi_url="/distill/openapi.json",
            title="Understudy status API",
            swagger_js_url="/distill/assets/swagger-ui-bundle.js",
            swagger_css_url="/distill/assets/swagger-ui.css",
            swagger_favicon_url="/distill/assets/favicon-32x32.png",
        )
        return _with_policy(bytes(shown.body).decode())

    @api.get("/distill/status", tags=["status"])
    async def all_tasks() -> Status:
        """Every task: traces, stage, examples, last run, certificate, route, traffic, money."""
        return await status()

    @api.get(
        "/distill/metrics",
        tags=["status"],
        response_class=PlainTextResponse,
        responses={200: {"description": "In the text format of Prometheus, or OpenMetrics."}},
    )
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        """The status for Prometheus; the requests themselves are at /metrics."""
        kind, page = metrics_page(await status(), accept)
        return Response(page, headers={"content-type": kind})

    return api
