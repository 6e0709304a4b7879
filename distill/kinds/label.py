"""The kind `label`: linear classifiers over n-grams, for answers from closed sets.

Seconds to train, a millisecond to answer, and no base. All students of a machine are served by one
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import orjson

from distill.dataset.answers import Answers
from distill.dataset.rows import Row
from distill.dataset.texts import is_short, parsed
from distill.kinds.kind import Trained
from distill.label.fit import VERSION
from distill.label.trainer import ADAPTER
from distill.run.progress import Progress
from distill.run.run import Run
from distill.students.label_server import LabelProcess, LabelServer
from distill.students.students import StudentProcess, StudentSpec
from distill.train.train import TrainItem
from store.chat.normal_form import normal_text
from store.errors import TrainingError
from store.files.atomic import write_atomically
from store.jsontext import JsonObject
from store.process import leash
from store.records import Example, KindName
from store.settings.tasks import TaskSettings

FOLDER = "train-label"
REPORT = "report.json"  # the manifest, written last; without it training is redone
LOG = "train.log"
MAX_QUOTED = 300  # characters of the log that an error quotes


class LabelKind:
    """Learns which of a closed set of answers an input has."""

    name: KindName = "label"
    learns_examples = False

    def unfit(self, answers: Answers, settings: TaskSettings) -> str:
        """Why these answers are not from closed sets; empty when they are."""
        if answers.kind == "label":
            return "" if answers.labels else "there are too many labels"
        if answers.kind != "json":
            return f"answers of the kind {answers.kind} are not from closed sets"
        if answers.open_fields:
            named = ", ".join(sorted(answers.open_fields)[:3])
            return f"not every field is from a closed set: {named}"
        return "" if answers.fields else "the answers have no field"

    async def train(
        self,
        run: Run,
        real: Sequence[Row],
        calibration: Sequence[Row],
        examples: Sequence[Example],
        progress: Progress,
    ) -> Trained:
        """Trains on the real rows, in a subprocess."""
        structured = sum(_is_json(row.target) for row in real)
        kind = "json" if structured > len(real) / 2 else "label"
        fits = _is_json if kind == "json" else _is_label
        lines = {
            "train": b"".join(_line(row) for row in real if fits(row.target)),
            "valid": b"".join(_line(row) for row in calibration),
        }
        folder = run.folder / FOLDER
        progress("train", 0, 1, "label: n-grams")
        report = await _train(folder, {"answers": kind}, lines, run.settings.train.timeout_s)
        progress("train", 1, 1, f"label: agreement {report['valid_agreement']:.3f}")
        numbers = {"chosen": "real", "candidates": {"real": report}}
        return Trained(folder / ADAPTER, "real", self.name, "", numbers)

    def servers(self, log_dir: Path) -> Callable[[StudentSpec], StudentProcess]:
        """All students are served by one process."""
        process = LabelProcess(log_dir)
        return lambda spec: LabelServer(spec, process)


async def _train(
    folder: Path, config: JsonObject, lines: dict[str, bytes], timeout_s: float
) -> JsonObject:
    """The report of a training in this folder; that of an earlier one on the same rows, if any.

    Raises TrainingError.
    """
    digest = blake2b(orjson.dumps([VERSION, config]), digest_size=16)
    for name, content in lines.items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    made_of = digest.hexdigest()
    earlier = await asyncio.to_thread(_read_report, folder)
    if earlier is not None and earlier.pop("made_of", "") == made_of:
        return earlier
    await asyncio.to_thread(_prepare, folder, config, lines)
    report = await _run(folder, timeout_s)
    content = orjson.dumps({"made_of": made_of, **report}, option=orjson.OPT_INDENT_2)
    await asyncio.to_thread(write_atomically, folder / REPORT, content)
    return report


async def _run(folder: Path, timeout_s: float) -> JsonObject:
    """Runs the training subprocess. Raises TrainingError when it yields no student."""
    log = folder / LOG
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *leash.command("distill.label.trainer", str(folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            raise TrainingError(
                f"training took longer than train.timeout_s ({timeout_s:g} s) and was stopped"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    lines = output.strip().splitlines()
    with contextlib.suppress(orjson.JSONDecodeError, IndexError):
        if process.returncode == 0:
            report: JsonObject = orjson.loads(lines[-1])
            return report
    raise TrainingError(_failure(process.returncode, log))


def _failure(code: int | None, log: Path) -> str:
    how = f"with exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            how = f"by {signal.Signals(-code).name}"
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = tail[-1].strip()[:MAX_QUOTED] if tail else "nothing"
    return f"training ended {how}; it said last: {last}"


def _prepare(folder: Path, config: JsonObject, lines: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in lines.items():
        write_atomically(folder / "data" / f"{name}.jsonl", content)
    write_atomically(folder / "config.json", orjson.dumps(config))


def _read_report(folder: Path) -> JsonObject | None:
    try:
        report: JsonObject = orjson.loads((folder / REPORT).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return report


def _line(row: Row) -> bytes:
    return TrainItem(row.messages, row.target).line()


def _is_json(target: str) -> bool:
    return isinstance(parsed(target), dict | list)


def _is_label(target: str) -> bool:
    return is_short(normal_text(target))
