"""`understudy import`: other logs of a teacher's answers become traces.

They go through the journal, as the proxy's do: a running server collects them within a second or
two, or the next server when it starts. Imports are idempotent, also of exports that overlap: a
trace's id is a hash of its call, and the store takes an id once. Where a log gives its calls no
ids, equal calls of one file are different answers, numbered in their order.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from cli.imports.formats import recognize
from cli.imports.logged import (
    Format,
    LoggedCall,
    Unusable,
    first_task,
    make_trace,
    repeated_id,
)
from cli.imports.rows import Row, read_rows
from cli.imports.shapes import AnswerShapes, AnswersReport, one_line
from cli.imports.values import at_path, parsed
from store.errors import ImportFailed, JournalError
from store.files.journal import JournalWriter
from store.privacy.redaction import Redaction, redaction_of
from store.privacy.settings import PrivacySettings
from store.settings.config import TAG, Config, JournalSettings

_TICK_ROWS = 64  # rows between two checks whether a segment is due
_CLOCKS_DIFFER_S = 3600.0
_MAX_COUNTED = 1_000_000  # calls without an id, in one file: from then on a repeat counts once
_MAX_NOT_TAGS, _MAX_NOT_TAG_CHARS = 5, 40
_MAX_TAG_CHARS = 64
NO_TASK = "no task: give --task or --tag-from"
NO_FIELD = "no task: the field of --tag-from is not there, or is empty"
NOT_A_TAG = (
    "its task is no tag, which is 1 to 64 of a-z, 0-9, '.', '_' and '-': --slug makes one of it"
)
OPTED_OUT = "its client had opted out: `store` is false"
NO_MODEL = "no model: give --model, as clients name the teacher"


@dataclass(frozen=True, slots=True)
class Labels:
    """The task and the teacher of imported calls, where their log does not name them."""

    task: str | None = None  # of all of them
    tag_from: str | None = None  # the field of a row that holds its task, such as metadata.feature
    model: str | None = None  # of all of them: the teacher as clients name it
    slug: bool = False  # whether a task's name that is no tag becomes one
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
    """The counts of one imported file, and what its answers look like."""

    file: str
    format: str | None  # None: it holds no rows, or was not recognised
    taken: int
    left_out: dict[str, int]  # by reason, the most common first
    not_tags: list[str]  # some of the values that should have been tasks
    answers: AnswersReport
    error: str | None = None  # why the rest of it could not be read

    @property
    def rows(self) -> int:
        return self.taken + sum(self.left_out.values())


class NotATag(Unusable):
    """A row whose task has a name that no task may have."""

    def __init__(self, value: str) -> None:
        super().__init__(NOT_A_TAG)
        self.value = value


def import_file(
    path: Path,
    journal: JournalWriter,
    labels: Labels,
    *,
    format_name: str | None = None,
    keep: KeepRules = KeepRules(),
) -> FileReport:
    """Writes the calls of a file into the journal. `format_name`: None: it is recognised.

    Raises JournalError when the journal cannot be written. A file that cannot be read or recognised
    says so in its report. Rows before a failure stay in the journal; a second import repeats none.
    """
    counts = _Counts()
    format_: Format | None = None
    error = None
    try:
        at = _modified(path)
        rows, format_ = recognize(read_rows(path), path, format_name)
        if format_ is not None:
            _import_rows(rows, format_, _Target(journal, labels, keep, at), counts)
    except ImportFailed as failure:
        error = str(failure)
    except JournalError as failure:
        raise JournalError(f"{failure}; {counts.taken:,} rows of {path} were taken") from None
    return FileReport(
        path.name,
        format_.name if format_ and (counts.taken or counts.left_out) else None,
        counts.taken,
        dict(counts.left_out.most_common()),
        list(counts.not_tags),
        counts.shapes.report(),
        error,
    )


@dataclass(slots=True)
class _Counts:
    """What has been counted of a file so far."""

    taken: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    not_tags: dict[str, None] = field(default_factory=dict)  # in their order
    shapes: AnswerShapes = field(default_factory=AnswerShapes)
    # how often a call without an id of its own came, by a hash: about 100 bytes each
    times: dict[int, int] = field(default_factory=dict)

    def leave_out(self, why: Unusable) -> None:
        self.left_out[str(why)] += 1
        if isinstance(why, NotATag) and len(self.not_tags) < _MAX_NOT_TAGS:
            self.not_tags[one_line(why.value, _MAX_NOT_TAG_CHARS)] = None

    def own_id(self, trace_id: str) -> str:
        """The id of a call whose log has none: a repeat is an answer of its own."""
        key = int(trace_id[:8] + trace_id[-8:], 16)
        if len(self.times) >= _MAX_COUNTED and key not in self.times:
            return trace_id
        times = self.times[key] = self.times.get(key, -1) + 1
        return repeated_id(trace_id, times)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the calls of a file go, and as what."""

    journal: JournalWriter
    labels: Labels
    keep: KeepRules
    at: float  # the time of calls whose log has none


def _import_rows(
    rows: Iterator[Row | Unusable], format_: Format, target: _Target, counts: _Counts
) -> None:
    journal, labels, keep = target.journal, target.labels, target.keep
    now = time.time()
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
                    at=target.at,
                    redaction=keep.redaction,
                )
            except Unusable as why:
                counts.leave_out(why)
                continue
            if not call.call_id and (own := counts.own_id(trace.trace_id)) != trace.trace_id:
                trace = replace(trace, trace_id=own)
            journal.append(trace)
            if not journal.health.ok:
                raise JournalError(journal.health.error)
            counts.taken += 1
            counts.shapes.add(trace)
        if number % _TICK_ROWS == 0:
            journal.tick()


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
    if labels.task:
        return labels.task
    if labels.tag_from:
        found = at_path(call.fields or {}, labels.tag_from)
        found = at_path(row, labels.tag_from) if found is None else found
        names = parsed(found) if isinstance(parsed(found), list) else [found]
        tags: Sequence[Any] = ()
    else:
        names, tags = [*call.task_names, at_path(row, "metadata.task")], call.tags
    texts = [name for one in names if (name := _name(one))]
    task = first_task(texts, tags)
    if task is None and labels.slug:
        task = next((made for text in texts if (made := slug(text))), None)
    if task is not None:
        return task
    if texts:
        raise NotATag(texts[0])
    raise Unusable(NO_FIELD if labels.tag_from else NO_TASK)


def _name(value: Any) -> str | None:
    """The value as a name: a text, or an integer as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def slug(text: str) -> str | None:
    """A tag made of a text, `ticket-triage` of "Ticket Triage"; None: nothing of it may be in one.

    A text that is already a tag stays as it is.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    made = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("._-")[:_MAX_TAG_CHARS].rstrip("._-")
    return made if TAG.fullmatch(made) else None


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
