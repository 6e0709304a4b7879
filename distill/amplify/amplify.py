"""Amplification: the teacher writes new inputs for a task and answers them (synthetic data).

New inputs are bought in batches and checked. The teacher answers those that pass, through the
task's own production prompt: a real train row's request with the new text at its end. Then the
answers are checked. Each paid reply is appended to a file before it is used (`inputs.jsonl`,
`answers.jsonl`). The files are replayed at the start, so that a run that was killed resumes without
paying twice. `manifest.json` is written last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson

from distill.amplify.candidates import (
    DRY_BATCHES,
    AnswerLine,
    CandidatePool,
    InputCandidate,
    InputsLine,
)
from distill.amplify.checks import Fault
from distill.amplify.diversity import RECENT, BatchPlan, SyntheticInputs, inputs_prompt, plan_batch
from distill.amplify.policy import TaskPolicy
from distill.dataset.answers import Answers
from distill.dataset.rows import Row
from distill.run.progress import Progress
from distill.teacher.client import Answer, TeacherClient, Tokens
from store.errors import BudgetSpent, TeacherError, TeacherMalformed, TeacherRefused
from store.files.atomic import write_atomically
from store.files.line_log import LineLog
from store.records import Example
from store.settings.tasks import AmplifySettings

STAGE = "amplify"


@dataclass(frozen=True, slots=True)
class Amplified:
    """The synthetic examples of a run, kept and rejected, and the reason why no more were made."""

    examples: list[Example]
    stopped: str


async def amplify(
    folder: Path,
    *,
    run_id: str,
    task: str,
    policy: TaskPolicy,
    answers: Answers,
    rows: Sequence[Row],
    forbidden: set[str],
    client: TeacherClient,
    settings: AmplifySettings,
    progress: Progress,
) -> Amplified:
    """Makes exactly `settings.target` synthetic examples; if fewer, `stopped` says why.

    `answers`: what the task's real answers look like. `rows`: the real train rows. `forbidden`:
    the input hashes of all real rows of any split.
    There are fewer when the token budget is spent, or when DRY_BATCHES batches in a row give no
    example. Raises TeacherError when the teacher cannot be used; paid replies stay in the files.
    """
    candidates = await asyncio.to_thread(  # seconds for ten thousands of rows
        CandidatePool,
        run_id=run_id,
        task=task,
        policy=policy,
        answers=answers,
        rows=rows,
        forbidden=forbidden,
        near_duplicate=settings.near_duplicate,
    )
    work = _Amplification(
        folder,
        candidates=candidates,
        run_id=run_id,
        policy=policy,
        rows=rows,
        client=client,
        settings=settings,
        progress=progress,
    )
    return await work.run()


class _Amplification:
    """One amplification while it runs. Read `run` first."""

    def __init__(
        self,
        folder: Path,
        *,
        candidates: CandidatePool,
        run_id: str,
        policy: TaskPolicy,
        rows: Sequence[Row],
        client: TeacherClient,
        settings: AmplifySettings,
        progress: Progress,
    ) -> None:
        self._inputs = LineLog(folder / "inputs.jsonl")
        self._answers = LineLog(folder / "answers.jsonl")
        self._manifest_file = folder / "manifest.json"
        self._candidates = candidates
        self._run_id = run_id
        self._policy = policy
        self._rows = rows
        self._client = client
        self._settings = settings
        self._progress = progress
        self._batches_running = 0
        self._answers_running = 0
        self._planned = 0  # batches, running ones included

    async def run(self) -> Amplified:
        await asyncio.to_thread(self._replay)
        stopped = self._finished_before()
        if stopped is None:
            stopped = await self._buy()
            self._write_manifest(stopped)
        return Amplified(self._candidates.examples(), stopped)

    # ---- replay ---------------------------------------------------------------------------------

    def _replay(self) -> None:
        for inputs in self._inputs.load():
            self._candidates.add_inputs(InputsLine(**inputs))
        answers = [AnswerLine(**line) for line in self._answers.load()]
        for answer in answers:
            self._candidates.add_answer(answer)
        self._candidates.drop_open({answer.example_id for answer in answers})
        self._planned = self._candidates.batches

    def _finished_before(self) -> str | None:
        """Why an earlier call with the same settings stopped; None when there is more to do."""
        if not self._manifest_file.exists():
            return None
        manifest = orjson.loads(self._manifest_file.read_bytes())
        same = manifest["settings"] == self._settings.model_dump()
        return str(manifest["stopped"]) if same else None

    def _write_manifest(self, stopped: str) -> None:
        manifest = {
            "stopped": stopped,
            "kept": self._candidates.kept,
            "rejected": dict(self._candidates.rejected),
            "batches": self._candidates.batches,
            "settings": self._settings.model_dump(),
        }
        write_atomically(self._manifest_file, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))

    # ---- buying ---------------------------------------------------------------------------------

    async def _buy(self) -> str:
        """Calls the teacher until the target is reached or it has to stop; returns the reason."""
        running: set[asyncio.Task[None]] = set()
        failed: TeacherError | None = None
        broke: BudgetSpent | None = None
        try:
            while True:
                while not failed and not broke and len(running) < self._settings.concurrency:
                    call = self._next_call()
                    if call is None:
                        break
                    running.add(asyncio.create_task(call))
                self._report()
                if not running:
                    break
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for error in (task.exception() for task in ended):
                    if isinstance(error, BudgetSpent):
                        broke = error
                    elif isinstance(error, TeacherError):
                        failed = failed or error
                    elif error is not None:
                        raise error
                if broke and any(task.exception() is None for task in ended):
                    broke = (
                        None  # that call may have left enough of its reserved tokens for another
                    )
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if failed:
            raise failed
        return self._why_stopped(broke)

    def _next_call(self) -> Coroutine[Any, Any, None] | None:
        """The next call; None when the running ones may be enough, or no more inputs come."""
        candidates, settings = self._candidates, self._settings
        certain = candidates.kept + self._answers_running
        if certain < settings.target and candidates.open:
            self._answers_running += 1
            return self._buy_answer(candidates.open.popleft())
        expected = certain + len(candidates.open) + self._batches_running * settings.batch
        if expected < settings.target and not candidates.dry:
            self._batches_running += 1
            self._planned += 1
            return self._buy_inputs(self._planned)
        return None

    async def _buy_inputs(self, number: int) -> None:
        recent = self._candidates.latest(RECENT)
        plan = plan_batch(
            Random(f"{self._run_id}/{number}"),  # noqa: S311 - seeded sampling, not a secret
            self._rows,
            self._settings,
            aims=self._candidates.aims,
            so_far=self._candidates.aimed,
            avoid=[candidate.text for candidate in recent],
        )
        inputs: list[str] = []
        fault, tokens = "", Tokens()
        try:
            bought = await self._client.structured(
                "inputs",
                SyntheticInputs,
                inputs_prompt(plan, self._policy),
                {"temperature": self._settings.temperature},
            )
            inputs, tokens = bought.value.inputs, bought.tokens
        except TeacherRefused:
            fault = Fault.TEACHER_REFUSED.value
        except TeacherMalformed:
            fault = Fault.TEACHER_MALFORMED.value
        finally:
            self._batches_running -= 1
        shown = [candidate.example_id for candidate in recent]
        self._keep_inputs(plan, shown, inputs, fault, tokens)

    def _keep_inputs(
        self, plan: BatchPlan, shown: list[str], inputs: list[str], fault: str, tokens: Tokens
    ) -> None:
        line = InputsLine(
            batch=self._candidates.batches,
            at=time.time(),
            model=self._client.model,
            inputs=inputs,
            fault=fault,
            tokens=asdict(tokens),
            context=[row.trace_id for row in plan.context],
            shown=shown,
        )
        self._inputs.append(asdict(line))
        self._candidates.add_inputs(line)

    async def _buy_answer(self, candidate: InputCandidate) -> None:
        answer = Answer(text=None, finish_reason="", tokens=Tokens())
        fault = ""
        try:
            answer = await self._client.answer(candidate.messages, candidate.template.params)
        except TeacherRefused:
            fault = Fault.TEACHER_REFUSED.value
        except TeacherMalformed:
            fault = Fault.TEACHER_MALFORMED.value
        except TeacherError:
            self._candidates.open.appendleft(candidate)
            raise
        finally:
            self._answers_running -= 1
        line = AnswerLine(
            example_id=candidate.example_id,
            at=time.time(),
            text=answer.text,
            finish_reason=answer.finish_reason,
            fault=fault,
            tokens=asdict(answer.tokens),
        )
        self._answers.append(asdict(line))
        self._candidates.add_answer(line)

    # ---- progress and reason --------------------------------------------------------------------

    def _report(self) -> None:
        note = f"{self._candidates.rejected.total()} rejected, {self._client.spent} tokens"
        self._progress(STAGE, self._candidates.kept, self._settings.target, note)

    def _why_stopped(self, broke: BudgetSpent | None) -> str:
        if self._candidates.kept >= self._settings.target:
            return "target reached"
        if broke:
            return f"token budget: {broke}"
        reasons = ", ".join(f"{name} {n}" for name, n in self._candidates.rejected.most_common(3))
        return f"dry: the last {DRY_BATCHES} batches of inputs brought nothing new" + (
            f" (rejected so far: {reasons})" if reasons else ""
        )
