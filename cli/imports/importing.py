"""`understudy import`: other logs of a teacher's answers become traces.

They go through the journal, as the proxy's do: a running server collects them within a second or
two, or the next server when it starts. Imports are idempotent, also of exports that overlap: a
trace's id is a hash of its call, and the store takes an id once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.imports.formats import recognize
from cli.imports.logged import Format, LoggedCall, Unusable, first_task, make_trace
from cli.imports.rows import Row, read_rows
from cli.imports.values import at_path
from store.errors import ImportFailed, JournalError
from store.files.journal import JournalWriter
from store.privacy.redaction import Redaction, redaction_of
from store.privacy.settings import PrivacySettings
from store.settings.config import Config, JournalSettings

_TICK_ROWS = 64  # rows between two checks whether a segment is due
_CLOCKS_DIFFER_S = 3600.0
NO_TASK = "no task: give --task or --tag-from"
OPTED_OUT = "its client had opted out: `store` is false"
NO_MODEL = "no model: give --model, as clients name the teacher"


@dataclass(frozen=True, slots=True)
class Labels:
    """The task and the teacher of imported calls, where their log does not name them."""

    task: str | None = None  # of all of them
    tag_from: str | None = None  # the field of a row that holds its task, such as metadata.feature
    model: str | None = None  # of all of them: the teacher as clients name it
    teacher: Callable[[str | None], str | None] = field(default=lambda name: name)


@dataclass(frozen=True, slots=True)
class KeepRules:
    """What of the calls may be kept: the privacy settings of the config."""

    store_false: bool = False  # whether `store: false` in a request opts out
    redaction: Redaction | None = None

    @classmethod
    def by(cls, settings: PrivacySettings) -> KeepRules:
        """Raises ConfigError when the redaction cannot be used."""
        return cls("chat_completions" in settings.store_false, redaction_of(settings))


@dataclass(frozen=True, slots=True)
class FileReport:
    """The counts of one imported file."""

    file: str
    format: str
    taken: int
    left_out: dict[str, int]  # by reason, the most common first

    @property
    def rows(self) -> int:
        return self.taken + sum(self.left_out.values())


def import_file(
    path: Path,
    journal: JournalWriter,
    labels: Labels,
    *,
    format_name: str | None = None,
    keep: KeepRules = KeepRules(),
) -> FileReport:
    """Writes the calls of a file into the journal. `format_name`: None: it is recognised.

    Raises ImportFailed when the file cannot be read or recognised, JournalError when the journal
    cannot be written. Rows before the failure stay in the journal; a second import repeats none.
    """
    rows, format_ = recognize(read_rows(path), path, format_name)
    at = _modified(path)
    now = time.time()
    taken = 0
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows):
        for call in [row] if isinstance(row, Unusable) else _calls(format_, row):
            try:
                if isinstance(call, Unusable):
                    raise call
                if call.start_time is not None and call.start_time > now + _CLOCKS_DIFFER_S:
                    raise Unusable("its time lies in the future")
                if keep.store_false and call.request.get("store") is False:
                    raise Unusable(OPTED_OUT)
                trace = make_trace(
                    call,
                    source=f"import:{format_.name}",
                    task=_task(call, row, labels),
                    model=_model(call, labels),
                    at=at,
                    redaction=keep.redaction,
                )
            except Unusable as why:
                left_out[str(why)] += 1
                continue
            journal.append(trace)
            if not journal.health.ok:
                raise JournalError(f"{journal.health.error}; {taken:,} rows of {path} were taken")
            taken += 1
        if number % _TICK_ROWS == 0:
            journal.tick()
    return FileReport(path.name, format_.name, taken, dict(left_out.most_common()))


def open_journal(config: Config | None, data_dir: Path) -> JournalWriter:
    """A writer of the journal in a data folder.

    Without fsync: an import that a power cut loses can be repeated.
    """
    settings = config.journal if config else JournalSettings()
    return JournalWriter(data_dir / "journal", settings.model_copy(update={"fsync": False}))


def teacher_names(config: Config) -> Callable[[str | None], str | None]:
    """A function from a model's name in a log to the name that this config's clients use.

    Logs name snapshots (`gpt-4.1-2025-04-14`) and providers (`openai/gpt-4.1`). A name that stands
    for one entry of `model_list` becomes that entry's; any other stays. None: the default teacher.
    """
    default = config.teacher.model or str(config.model_list[0]["model_name"])
    names: dict[str, set[str]] = {}
    for entry in config.model_list:
        name, upstream = entry["model_name"], entry["litellm_params"]["model"]
        for alias in (name, upstream, upstream.rpartition("/")[2]):
            names.setdefault(alias, set()).add(name)
    own = {entry["model_name"] for entry in config.model_list}

    def named(model: str | None) -> str | None:
        if model is None:
            return default
        if model in own:
            return model
        for candidate in _shorter(model):
            candidates = names.get(candidate, set())
            if len(candidates) == 1 and "*" not in (name := next(iter(candidates))):
                return name
        return model

    return named


def _shorter(model: str) -> Iterator[str]:
    """A model's name, then without its provider, then without the date of a snapshot."""
    bare = model.rpartition("/")[2]
    yield from (model, bare)
    parts = bare.rsplit("-", 3)
    if len(parts) == 4 and all(p.isdigit() for p in parts[1:]) and len(parts[1]) == 4:
        yield parts[0]


def _calls(format_: Format, row: Row) -> Iterable[LoggedCall | Unusable]:
    try:
        return list(format_.calls(row))
    except RecursionError:
        return [Unusable("it is nested too deeply, or holds what JSON cannot")]


def _task(call: LoggedCall, row: Any, labels: Labels) -> str:
    names = (
        (labels.task,)
        if labels.task
        else (at_path(row, labels.tag_from),)
        if labels.tag_from
        else call.task_names
    )
    task = first_task(names, () if labels.task or labels.tag_from else call.tags)
    if task is None:
        raise Unusable(NO_TASK)
    return task


def _model(call: LoggedCall, labels: Labels) -> str:
    logged = call.request.get("model")
    name = logged if isinstance(logged, str) and logged else None
    model = labels.model or labels.teacher(name)
    if model is None:
        raise Unusable(NO_MODEL)
    return model


def _modified(path: Path) -> float:
    """When the file was written: its answers without a time are no newer than that."""
    try:
        return min(path.stat().st_mtime, time.time())
    except OSError as error:
        raise ImportFailed(f"{path}: cannot be read ({error.strerror})") from None
