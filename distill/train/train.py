"""Trains one adapter: writes the rows and the config, and runs the training subprocess.

The folder of a training holds, in the order in which they are written:

    data/train.jsonl, data/valid.jsonl   rows as OpenAI chat lines, readable by our user only
    config.yaml                          mlx_lm's own keys; `mlx_lm lora -c config.yaml` runs too
    train.log                            what the subprocess printed
    adapter/                             what mlx_lm.server loads
    report.json                          the manifest, written last; without it training is redone
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

import orjson
import yaml

from distill.run.progress import Progress
from distill.train import blas
from distill.train.config import training_config
from store.chat.shape import Messages
from store.chat.student_wire import student_messages
from store.errors import TrainingError
from store.files.atomic import write_atomically
from store.jsontext import JsonObject
from store.process import leash
from store.records import Example
from store.settings.tasks import TrainSettings

LOG_TAIL = 3  # lines of the subprocess's log that an error quotes
LINE_LIMIT = 300  # characters of each


@dataclass(frozen=True, slots=True)
class TrainItem:
    """A request's messages and the answer to learn."""

    messages: Messages
    target: str

    @classmethod
    def from_example(cls, example: Example) -> TrainItem:
        """The item of an example."""
        return cls(orjson.loads(example.input_messages), example.target)

    def line(self) -> bytes:
        """The item as an OpenAI fine-tuning line."""
        answer = {"role": "assistant", "content": self.target}
        return orjson.dumps(
            {"messages": [*student_messages(self.messages), answer]},
            option=orjson.OPT_APPEND_NEWLINE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """The result of a training. Losses are mean cross-entropies per token, in nats."""

    adapter: Path
    iterations: int
    best_iteration: int  # the one whose adapter was kept
    best_val_loss: float
    val_losses: list[tuple[int, float]]  # (after how many iterations, loss)
    train_losses: list[tuple[int, float]]  # likewise
    valid_agreement: float  # share of validation rows whose answer is exactly the teacher's
    train_rows: int
    left_out: int  # training rows longer than max_seq_length
    valid_rows: int
    valid_left_out: int
    tokens_per_second: float  # trained on, prompts included
    seconds: float  # of the subprocess, loading the base included
    peak_mb: float = 0.0  # the largest memory of the subprocess; 0: not known

    def numbers(self) -> JsonObject:
        """The report as JSON, without the adapter's path."""
        return {name: value for name, value in asdict(self).items() if name != "adapter"}


async def train(
    folder: Path,
    *,
    train: Sequence[TrainItem],
    valid: Sequence[TrainItem],
    settings: TrainSettings,
    progress: Progress,
) -> TrainReport:
    """Trains an adapter in `folder`; returns at once if the same training has finished there.

    Raises TrainingError when the subprocess fails, is killed, or takes longer than
    `settings.timeout_s`; the next call then starts over.
    """
    config = training_config(
        settings,
        base=_base(settings.base),
        data=folder / "data",
        adapter=folder / "adapter",
        rows=len(train),
    )
    lines = {"train": [i.line() for i in train], "valid": [i.line() for i in valid]}
    made_of = _digest(config, lines)
    done = await asyncio.to_thread(_read_manifest, folder, made_of)
    if done is not None:
        progress("train", done.iterations, done.iterations, "already trained")
        return done
    if not train or not valid:
        raise TrainingError(f"training needs rows: {len(train)} to train on, {len(valid)} to check")

    await asyncio.to_thread(blas.warn_if_slow)
    await asyncio.to_thread(_prepare, folder, config, lines)
    report = await _run(folder, config, settings.timeout_s, progress)
    manifest = {"made_of": made_of, **report.numbers()}
    await asyncio.to_thread(
        write_atomically, folder / "report.json", orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    )
    return report


# ---- the subprocess ----------------------------------------------------------------------------


async def _run(
    folder: Path, config: JsonObject, timeout_s: float, progress: Progress
) -> TrainReport:
    progress("train", 0, config["iters"], "loading the base")
    log = folder / "train.log"
    command = leash.command(
        "distill.train.mlx_launch", "distill.train.trainer", str(folder / "config.yaml")
    )
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=_environment(config["model"]),
        )
        assert process.stdout is not None
        reader = _Reader(config["iters"], progress)
        try:
            async with asyncio.timeout(timeout_s):
                async for line in process.stdout:
                    if line.startswith(b"{"):  # other lines are printed by native libraries
                        reader.take(json.loads(line))
                await process.wait()
        except TimeoutError:
            raise TrainingError(
                f"training took longer than train.timeout_s ({timeout_s:g} s) and was stopped "
                f"after {reader.iteration} of {config['iters']} iterations"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0 or reader.end is None:
        raise TrainingError(_failure(process.returncode, reader.iteration, config["iters"], log))
    return reader.report(folder / "adapter")


class _Reader:
    """Collects the report from the events of the subprocess."""

    def __init__(self, iters: int, progress: Progress) -> None:
        self._iters, self._progress = iters, progress
        self._start: JsonObject = {}
        self._train: list[tuple[int, float]] = []
        self._valid: list[tuple[int, float]] = []
        self.end: JsonObject | None = None
        self.iteration = 0

    def take(self, event: JsonObject) -> None:
        match event.pop("event"):
            case "start":
                self._start = event
                self._report_progress("training")
            case "train":
                self.iteration = event["iteration"]
                self._train.append((self.iteration, event["loss"]))
                self._report_progress(
                    f"loss {event['loss']:.3f}, {event['tokens_per_second']:.0f} tokens/s"
                )
            case "validate":
                self._valid.append((event["iteration"], event["loss"]))
                self._report_progress(
                    f"validation loss {event['loss']:.3f}, agreement {event['agreement']:.3f}"
                )
            case "end":
                self.end = event
                self._report_progress(f"agreement {event['valid_agreement']:.3f}")

    def report(self, adapter: Path) -> TrainReport:
        assert self.end is not None
        del self._start["trainable_parameters"]
        return TrainReport(
            adapter=adapter,
            iterations=self._iters,
            val_losses=self._valid,
            train_losses=self._train,
            **self._start,
            **self.end,
        )

    def _report_progress(self, note: str) -> None:
        self._progress("train", self.iteration, self._iters, note)


def _failure(code: int | None, iteration: int, iters: int, log: Path) -> str:
    """The error message for a training that ended without an adapter."""
    how = f"with exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            how = f"by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (out of memory? lower batch_size or max_seq_length)"
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LOG_TAIL:]
    last = " | ".join(line.strip()[:LINE_LIMIT] for line in tail) or "nothing"
    return f"training ended {how} after {iteration} of {iters} iterations; it said last: {last}"


def _environment(base: str) -> dict[str, str]:
    """The subprocess's environment: with a base in a local folder it does not contact the hub."""
    offline = {"HF_HUB_OFFLINE": "1"} if Path(base).is_dir() else {}
    return {**os.environ, **offline, "PYTHONUNBUFFERED": "1"}


# ---- files -------------------------------------------------------------------------------------


def _base(base: str) -> str:
    """The base for the subprocess, in any working directory: a full path, or a hub name."""
    return str(Path(base).resolve()) if Path(base).is_dir() else base


def _digest(config: JsonObject, lines: dict[str, list[bytes]]) -> str:
    """Hash of everything that the adapter depends on; the folder's path is no part of it."""
    paths = {"data", "adapter_path"}
    settings = {name: value for name, value in config.items() if name not in paths}
    digest = blake2b(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS), digest_size=16)
    for name, rows in lines.items():
        digest.update(f"{name} {len(rows)}\n".encode())
        for line in rows:
            digest.update(line)
    return digest.hexdigest()


def _prepare(folder: Path, config: JsonObject, lines: dict[str, list[bytes]]) -> None:
    """Deletes the files of an earlier attempt and writes those that the subprocess reads."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, rows in lines.items():
        write_atomically(folder / "data" / f"{name}.jsonl", b"".join(rows))
    with _private(folder / "config.yaml") as file:
        yaml.safe_dump(config, file, sort_keys=False)


def _private(path: Path) -> IO[str]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8")


def _read_manifest(folder: Path, made_of: str) -> TrainReport | None:
    """The report of a finished training in this folder, if it was this one."""
    try:
        manifest = orjson.loads((folder / "report.json").read_bytes())
    except FileNotFoundError:
        return None
    if manifest.pop("made_of") != made_of:
        return None
    for name in ("val_losses", "train_losses"):
        manifest[name] = [(int(at), float(loss)) for at, loss in manifest[name]]
    return TrainReport(adapter=folder / "adapter", **manifest)
