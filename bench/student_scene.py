"""The running product with a serving student, for the measurements of students.

The student learns the demo's orders for a minute, or less, and is then made live as if it had
a certificate: these measurements are about serving, not about the gate.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import psutil

from bench.gateways import NEVER, family, is_worker
from demo.backtest.plan import DEFAULT_PRICE, NO_AUDITS
from demo.base.student_settings import BASE, tiny_train
from demo.drive.driver import Product, loopback_teacher
from demo.tasks import orders
from demo.tasks.tasks import TASKS
from demo.teacher.teacher import MODEL, start_teacher
from distill.train import blas
from distill.train.train import TrainItem, train
from store.chat.shape import fingerprint
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event
from store.files.routes import read_routes
from store.ids import new_id
from store.jsontext import JsonObject
from store.records import Certificate, Promotion, Route, RunEvent, RunState, TermsOfService
from store.settings.config import Config
from store.settings.tasks import AuditSettings, TaskSettings, TrainSettings

os.environ.setdefault(blas.VARIABLE, blas.WHEEL)  # a fast matrix product for students

TASK = TASKS[orders.NAME]
ROWS = 300  # that the student learns from
MAX_TOKENS = 64
MAX_INPUT_CHARS = 2000
READY_S = 120.0
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Scene:
    """A product whose student serves."""

    url: str  # of the product, without /v1
    student_url: str  # of the student's own server, without /v1
    product: Product

    def workers(self) -> list[psutil.Process]:
        """The processes that answer clients."""
        return [p for p in family(self.product.pid)() if is_worker(p)]

    def others(self) -> list[psutil.Process]:
        """The control plane and the supervisor, without the student."""
        found = family(self.product.pid)()
        return [p for p in found if not is_worker(p) and "mlx_lm" not in p.cmdline()]


def request(text: str, response_format: JsonObject | None = None) -> JsonObject:
    """A request of the task, as a client makes it."""
    body = {"model": MODEL, "messages": TASK.messages(text), "max_tokens": MAX_TOKENS}
    return {**body, "response_format": response_format} if response_format else body


async def train_adapter(folder: Path, *, rows: int = ROWS, steps: int | None = None) -> Path:
    """An adapter that has learnt the task; an existing one in `folder` is used.

    `steps`: of the training; None: as many as the demo's settings say.
    """
    rng = Random(f"{TASK.name}/adapter")
    drawn = [TASK.draw(rng) for _ in range(rows + rows // 5 + 4)]
    items = [TrainItem(TASK.messages(text), answer) for text, answer in drawn]
    settings = _settings()
    if steps is not None:
        settings = settings.model_copy(update={"iterations": steps, "validations": 1})
    report = await train(
        folder,
        train=items[:rows],
        valid=items[rows:],
        settings=settings,
        progress=lambda *_: None,
    )
    return report.adapter


@asynccontextmanager
async def live_student(
    folder: Path, adapter: Path, *, response_format: JsonObject | None = None
) -> AsyncIterator[Scene]:
    """The product with the stand-in teacher and this student, once the student has answered.

    It serves requests like `request("…", response_format)`. Its answers are not audited, and nine
    in ten may be broken before it is demoted.
    """
    async with await start_teacher() as teacher:
        settings = TaskSettings(
            min_traces=NEVER,
            train=_settings(),
            audit=AuditSettings(first_share=NO_AUDITS, last_share=NO_AUDITS),
        )
        product = Product(
            folder,
            {
                "model_list": [loopback_teacher(MODEL, teacher.base_url, DEFAULT_PRICE)],
                "tasks": {TASK.name: settings.model_dump()},
            },
        )
        body = request("…", response_format)
        await asyncio.to_thread(_promote, product.config, adapter, fingerprint(body))
        async with product:
            await _until_it_serves(product.base_url, response_format)
            route = read_routes(product.config.routes_file)[TASK.name]
            assert route.base_url is not None
            yield Scene(product.base_url, route.base_url, product)


def texts(count: int, seed: int) -> Sequence[str]:
    """So many e-mails of the task that the student has not seen, all different."""
    found = TASK.texts(seed)
    return [next(found) for _ in range(count)]


def _settings() -> TrainSettings:
    return tiny_train(ROWS)


def _promote(config: Config, adapter: Path, shape: str) -> None:
    """Makes the adapter the task's live student since a minute, in a closed store."""
    run_id, at = new_id(), time.time() - 60
    shutil.copytree(adapter, config.runs_dir / run_id / "adapter")
    certificate = Certificate(
        certificate_id=new_id(),
        task=TASK.name,
        run_id=run_id,
        method="none: a measurement",
        scorer="json",
        threshold=config.task(TASK.name).gate.threshold,
        confidence_level=0.95,
        n=ROWS,
        agreed=ROWS,
        score=1.0,
        lower_bound=0.98,
        cutoff=None,
        coverage=1.0,
        heldout=ROWS,
        agreement_all=1.0,
        min_coverage=0.3,
        faults=ROWS - 1,  # as many broken answers are tolerated as can be
        fingerprints=[shape],
        passed=True,
        reason="a measurement of the way to a student",
        at=at,
    )
    route = Route(
        task=TASK.name,
        target="student",
        reason="certified",
        student_id=run_id,
        fingerprints=[shape],
        terms=TermsOfService(output="json", max_tokens=MAX_TOKENS),
        scorer="json",
        max_input_chars=MAX_INPUT_CHARS,
        certificate_id=certificate.certificate_id,
        at=at,
    )
    trained = RunEvent(
        run_id=run_id,
        seq=0,
        task=TASK.name,
        state=RunState.TRAINED,
        at=at,
        detail={"adapter": "adapter", "base": str(BASE)},
    )
    promoted = RunEvent(
        run_id=run_id,
        seq=1,
        task=TASK.name,
        state=RunState.PROMOTED,
        at=at,
        detail={"used_until": at},
    )
    promotion = Promotion(
        promotion_id=new_id(),
        task=TASK.name,
        target="student",
        state="live",
        reason=certificate.reason,
        actor="bench",
        at=at,
        run_id=run_id,
        certificate=certificate,
        route=route,
    )
    with Database(config.database_file, config.store) as db:
        append_run_event(db, trained)
        append_run_event(db, promoted)
        append_promotion(db, promotion)


async def _until_it_serves(url: str, response_format: JsonObject | None) -> None:
    body = request(texts(1, seed=0)[0], response_format)
    deadline = time.monotonic() + READY_S
    headers = {"x-understudy-task": TASK.name}
    reason = None
    async with aiohttp.ClientSession(url, headers=headers) as http:
        while time.monotonic() < deadline:
            async with http.post(PATH, json=body) as answer:
                await answer.read()
                reason = answer.headers.get("x-understudy-reason")
                # a refused answer counts too: those of a badly trained student may be broken
                if reason == "certified" or str(reason).startswith("student_malformed"):
                    return
            await asyncio.sleep(0.2)
    raise RuntimeError(f"the student does not serve after {READY_S:.0f} s: {reason}")
