"""The status API: what the control plane knows, as JSON, with an OpenAPI page, and a page to read.

It listens on loopback for the proxy alone, which checks the clients' keys and shows the token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from distill.status import Status, TaskStatus

PAGE = Path(__file__).with_name("status.html")


def build_api(
    *,
    token: str,
    status: Callable[[], Awaitable[Status]],
    task_status: Callable[[str], Awaitable[TaskStatus | None]],
    version: str,
) -> FastAPI:
    """The FastAPI application. `status` and `task_status` read the store when they are called."""

    def only_the_proxy(x_understudy_token: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(x_understudy_token.encode(), token.encode()):
            raise HTTPException(403, "ask through the proxy")

    api = FastAPI(
        title="Understudy",
        summary="What each task's student has learned, what it may answer, and why.",
        version=version,
        openapi_url="/distill/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(only_the_proxy)],
    )
    api.openapi_version = "3.0.3"  # the newest that the packaged Swagger UI shows
    # the page's script and style come from a package, so that it also works without the internet
    api.mount("/distill/assets", StaticFiles(directory=str(swagger_ui_path)), name="assets")

    @api.get("/distill", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html")

    @api.get("/distill/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/distill/openapi.json",
            title="Understudy status API",
            swagger_js_url="/distill/assets/swagger-ui-bundle.js",
            swagger_css_url="/distill/assets/swagger-ui.css",
            swagger_favicon_url="/distill/assets/favicon-32x32.png",
        )

    @api.get("/distill/status", tags=["status"])
    async def all_tasks() -> Status:
        """Every task: traces, stage, examples, last run, certificate, route, traffic, money."""
        return await status()

    @api.get("/distill/status/{task}", tags=["status"])
    async def one_task(task: str) -> TaskStatus:
        """One task. 404 when no request was tagged so yet."""
        found = await task_status(task)
        if found is None:
            raise HTTPException(404, "no request has had this task yet")
        return found

    return api
