"""Chooses the rows of a run from logged exchanges, and says why the others are left out.

A row is one input under one prompt with the answer that it should have. An input is in one row of
each prompt only, and rows that belong together are one group (distill.dataset.groups), as are those
of one input: they are in one split, and the gate counts them as one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import orjson

from distill.dataset.cut_off import GivenAnswer, cut_off
from distill.dataset.exchange import Lesson, lesson_of
from distill.dataset.frequent import (
    MAX_ANSWERS,
    FrequentInput,
    Key,
    RequestCounts,
    TeacherAnswer,
    counted,
    is_frequent,
)
from distill.dataset.groups import Member, group, said
from distill.dataset.refusals import refusals
from distill.dataset.split import SplitGroup, Splits, split_groups
from distill.dataset.traffic import Shape, Traffic
from store.chat.normal_form import normal_answer
from store.chat.shape import Messages, input_hash, system_texts
from store.database.forgetting import digest_of
from store.database.runs import UsedInputs
from store.database.traces import RecentInputs
from store.files.atomic import read_lines, write_atomically
from store.jsontext import JsonObject
from store.records import (
    ExchangeKind,
    LoggedExchange,
    Origin,
    PromptTemplate,
    Split,
)
from store.settings.tasks import SplitSettings

_PRECEDENCE: tuple[ExchangeKind, ...] = ("correction", "audit", "answer")
SPLITS: tuple[Split, ...] = ("train", "calibration", "heldout")
MAX_REPEATS = 8  # of a frequent input's row in training
NEWEST_ANSWERS = 20  # to a prompt, which say what snapshots of the teacher count
MIN_OF_NEWEST = 2  # of those, for a snapshot that counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One real input with the answer that it should have."""

    trace_id: str
    input_hash: str  # of the conversation without system prompts, and of the template's values
    split: Split  # of its group: see distill.dataset.split
    fingerprint: str  # or the id of the system prompt's template
    model: str  # as the client named the teacher
    messages: Messages  # OpenAI wire format, without the answer; the last one is the user's
    params: JsonObject  # of the request: REASKED_PARAMS that it had, with its tools
    target: str  # the teacher's answer, or a client's correction: see distill.dataset.exchange
    origin: Origin = "trace"  # or correction
    group: int | None = None  # rows of one number belong together; None: it is alone
    frequent: bool = False  # its input is checked by itself: it stands for no other

    @property
    def messages_json(self) -> str:
        """The messages as a JSON array."""
        return orjson.dumps(self.messages).decode()


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of a task, oldest first, and how many traces were left out for which reason.

    Its properties are the only way to the rows of one split. Code that must not see a held-out row
    is handed `train`, `calibration` or `seen`; no other code filters by split.
    """

    rows: list[Row]
    left_out: dict[str, int] = field(default_factory=dict)
    templates: list[PromptTemplate] = field(default_factory=list)  # of the rows' system prompts
    snapshots: dict[str, list[str]] = field(default_factory=dict)  # of the teacher: current, other
    heldout_since: float | None = None  # when the oldest held-out group began; None: not known
    mixed_in_time: bool = False  # whether other groups are as new as the held-out ones
    frequent: list[FrequentInput] = field(default_factory=list)
    requests: int = 0  # recent ones, of which the frequent inputs are a part; 0: not known

    @property
    def train(self) -> list[Row]:
        """The rows that the student learns from."""
        return [row for row in self.rows if row.split == "train"]

    @property
    def lessons(self) -> list[Row]:
        """The train rows as a student learns them: a frequent input as often as it weighs.

        That is by its share of the requests, at most MAX_REPEATS times: one row among thousands
        would not be learned, however much of the traffic it is.
        """
        rows = self.train
        requests = {(one.fingerprint, one.input_hash): one.requests for one in self.frequent}
        lessons = []
        for row in rows:
            asked = requests.get((row.fingerprint, row.input_hash), 0)
            times = round(asked / self.requests * len(rows)) if self.requests else 1
            lessons += [row] * min(max(times, 1), MAX_REPEATS)
        return lessons

    @property
    def calibration(self) -> list[Row]:
        """The rows that checkpoints, confidence and cutoffs are chosen on."""
        return self._judging("calibration")

    @property
    def heldout(self) -> list[Row]:
        """The rows that certify the student. Nothing may be chosen or learned from them."""
        return self._judging("heldout")

    @property
    def seen(self) -> list[Row]:
        """The rows that may be looked at before the certificate: all but the held-out ones."""
        return [row for row in self.rows if row.split != "heldout"]

    @property
    def checked(self) -> list[Row]:
        """The rows of the frequent inputs, of whatever split: each is checked by itself."""
        return [row for row in self.rows if row.frequent]

    @property
    def sizes(self) -> dict[Split, int]:
        """How many rows each split has. Frequent inputs are rows of the train split at most."""
        return {split: len(rows) for split, rows in self._by_split().items()}

    @property
    def groups(self) -> dict[Split, int]:
        """How many groups each split has."""
        return {split: count_groups(rows) for split, rows in self._by_split().items()}

    def _by_split(self) -> dict[Split, list[Row]]:
        return {
            "train": self.train,
            "calibration": self.calibration,
            "heldout": self.heldout,
        }

    def _judging(self, split: Split) -> list[Row]:
        return [row for row in self.rows if row.split == split and not row.frequent]

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints and template ids of the rows, and each template's rest of the shape.

        The latter is the same when a later run recognises the template a little differently, so
        both runs count as attempts under the same fingerprints.
        """
        names = {row.fingerprint for row in self.rows}
        return sorted(names | {template.shape for template in self.templates})


def choose_rows(
    exchanges: Iterable[LoggedExchange],
    shares: SplitSettings,
    *,
    traffic: Traffic | None = None,
    recent: RecentInputs | None = None,
    suspect_since: float | None = None,
    used: UsedInputs | None = None,
    now: float | None = None,
) -> Selection:
    """The rows that these exchanges make.

    Usable are whole answers to text requests, in words or as tool calls (distill.dataset.exchange),
    of the shapes that count in the recent traffic (distill.dataset.traffic). A trace that comes as
    several kinds counts once: as a correction, else as an audit, else as the answer that it logged.

    When an input was answered several times under one prompt, the newest correction counts; without
    one the answer given most often, the newer of two equally common ones.

    An input that is a hundredth of the requests is frequent (distill.dataset.frequent): its answer
    is elected by every other one of the teacher's, so that the rest can judge it.

    Refusals in words teach nothing (distill.dataset.refusals), nor do answers that are cut off
    although they are said to be finished (distill.dataset.cut_off), unless a client gave them as a
    correction.

    Of the teacher's snapshots (the models that it says have answered), those that give its newest
    answers count: where one of them has answered an input, the answers of older ones do not. An
    input that only an older one has answered may be trained on, but is never judged. A snapshot
    counts when it has given two of the newest 20 answers to the prompt, so that two between which
    requests are balanced both do, and a single odd answer is no change.

    Groups are made of what is left then, and those that began last are held out
    (distill.dataset.split). Inputs with which many conversations begin are trained on and never
    judged: their answers stand in other rows. A row that resembles one of another group is left
    out, so that what is learned is never near to what is judged.

    `suspect_since`: the time of a drift. Where an input was answered before and after, only the
    later answers count; a row that was asked before may be trained on, but is neither a calibration
    nor a held-out row. `recent`: how often inputs were asked; None: as often as there are
    exchanges. `used`: by earlier runs; what they learned from is not held out. `now`: the time,
    beyond which no group began.
    """
    traffic, exchanges = traffic or Traffic(), _once(exchanges)
    left_out: Counter[str] = Counter()
    usable = _usable(exchanges, traffic, left_out)
    since = -inf if suspect_since is None else suspect_since
    usable = _without_non_answers(usable, left_out)
    snapshots = _snapshots(usable)
    by_input = list(_by_input(usable, traffic, left_out))
    counts = RequestCounts(recent, exchanges, traffic)
    total = counts.total({same[0].row.fingerprint for same in by_input})
    chosen = [
        _winner(
            same,
            snapshots,
            since,
            left_out,
            requests=counts.requests(c.counted for c in same),
            total=total,
        )
        for same in by_input
    ]
    chosen.sort(key=lambda one: (one.candidate.asked_at, one.candidate.row.trace_id))
    rows, splits = _split(chosen, shares, since, left_out, earlier=used, now=now)
    shapes = {row.fingerprint for row in rows}
    return Selection(
        rows,
        {name: count for name, count in sorted(left_out.items()) if count},
        [t for t in traffic.templates if t.template_id in shapes],
        _shown(
            current={name for of in shapes for name in snapshots.get(of, ())},
            other={c.snapshot for c in usable if c.snapshot and c.row.fingerprint in shapes},
        ),
        splits.since,
        splits.mixed,
        [
            *(one.as_frequent() for one in chosen if one.frequent),
            *counts.unanswered({c.counted for same in by_input for c in same}, shapes),
        ],
        total,
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One answer to one input. Times in seconds since the epoch."""

    asked_at: float
    answered_at: float
    row: Row  # without its split and group
    users: tuple[str, ...]  # the user's turns, with the values in the template's holes
    text: str  # the same with all other turns
    answer: str  # the normal form of the row's target
    snapshot: str  # of the teacher; empty: not known, or a correction
    given: GivenAnswer | None  # by the teacher; None: a correction
    counted: Key  # how the requests of its input are counted

    @property
    def order(self) -> tuple[float, float, str]:
        return self.answered_at, self.asked_at, self.row.trace_id


@dataclass(frozen=True, slots=True)
class _Winner:
    """The answer of an input that counts. Times in seconds since the epoch."""

    candidate: _Candidate
    first_at: float  # when the input was first asked
    last_at: float  # when it was last asked, of the answers that count
    current: bool  # whether a snapshot of the teacher that counts has answered it
    names: frozenset[str]  # the input's hash, and the ids of its traces
    requests: int  # recent ones of this input
    frequent: bool  # whether it is checked by itself
    answers: list[TeacherAnswer]  # of a frequent input: those that count, newest first

    def as_frequent(self) -> FrequentInput:
        row = self.candidate.row
        return FrequentInput(
            fingerprint=row.fingerprint,
            input_hash=row.input_hash,
            requests=self.requests,
            answers=self.answers,
        )


def _once(exchanges: Iterable[LoggedExchange]) -> list[LoggedExchange]:
    """Each trace once, as the first of _PRECEDENCE that there is of it."""
    chosen: dict[str, LoggedExchange] = {}
    for exchange in sorted(exchanges, key=lambda e: _PRECEDENCE.index(e.kind)):
        chosen.setdefault(exchange.trace_id, exchange)
    return list(chosen.values())


def _usable(
    exchanges: Iterable[LoggedExchange], traffic: Traffic, left_out: Counter[str]
) -> list[_Candidate]:
    """The exchanges that teach something, each with its row; counts the others."""
    usable = []
    for exchange in exchanges:
        lesson = lesson_of(exchange)
        if lesson.reason:
            left_out[lesson.reason] += 1
        else:
            shape = traffic.shape_of(exchange.fingerprint, exchange.request)
            usable.append(_candidate(exchange, lesson, shape))
    return usable


def _by_input(
    candidates: Sequence[_Candidate], traffic: Traffic, left_out: Counter[str]
) -> Iterable[list[_Candidate]]:
    """The candidates whose shape counts, grouped by prompt and input; counts the others."""
    counting = traffic.counting(Counter(c.row.fingerprint for c in candidates))
    groups: defaultdict[tuple[str, str], list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.row.fingerprint in counting:
            groups[candidate.row.fingerprint, candidate.row.input_hash].append(candidate)
        else:
            left_out["rare_fingerprint"] += 1
    return groups.values()


def _without_non_answers(
    candidates: Iterable[_Candidate], left_out: Counter[str]
) -> list[_Candidate]:
    """The candidates in which the teacher answers, and to the end; counts the others."""
    by_prompt: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_prompt[candidate.row.fingerprint].append(candidate)
    kept = []
    for of_prompt in by_prompt.values():
        given = [c for c in of_prompt if c.given is not None]
        kept += [c for c in of_prompt if c.given is None]
        ends = cut_off([c.given for c in given if c.given is not None])
        whole = [c for c, cut in zip(given, ends, strict=True) if not cut]
        refused = refusals([c.row.target for c in whole], system_texts(of_prompt[0].row.messages))
        answers = [c for c in whole if c.row.target not in refused]
        left_out["cut_off"] += len(given) - len(whole)
        left_out["refusal"] += len(whole) - len(answers)
        kept += answers
    return kept


def _snapshots(candidates: Iterable[_Candidate]) -> dict[str, set[str]]:
    """The teacher's snapshots that count, by prompt: those that give its newest answers."""
    answers: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.snapshot:
            answers[candidate.row.fingerprint].append(candidate)
    current = {}
    for prompt, given in answers.items():
        newest = sorted(given, key=lambda c: c.order)[-NEWEST_ANSWERS:]
        counts = Counter(c.snapshot for c in newest)
        current[prompt] = {s for s, n in counts.items() if n >= MIN_OF_NEWEST} or set(counts)
    return current


def _shown(*, current: set[str], other: set[str]) -> dict[str, list[str]]:
    """The teacher's snapshots as a run's history has them, without what there is none of."""
    shown = {"current": sorted(current), "other": sorted(other - current)}
    return {kind: names for kind, names in shown.items() if names}


def _winner(
    group: list[_Candidate],
    snapshots: Mapping[str, set[str]],
    since: float,
    left_out: Counter[str],
    *,
    requests: int,
    total: int,
) -> _Winner:
    """The candidate of one input that becomes its row; counts the others.

    `snapshots`: of the teacher, that count, by prompt. `since`: see `suspect_since` of choose_rows.
    `requests`: recent ones of this input, of `total`.
    """
    current = [c for c in group if c.answered_at >= since] or group
    left_out["outdated"] += len(group) - len(current)
    counting = snapshots.get(group[0].row.fingerprint, set())
    now = [c for c in current if not c.snapshot or c.snapshot in counting]
    left_out["other_snapshot"] += len(current) - len(now) if now else 0
    current = now or current
    frequent = is_frequent(requests, total)
    given = sorted(current, key=lambda c: c.order, reverse=True)[:MAX_ANSWERS]
    winner = _elected(given[::2] if frequent and not _corrected(given) else current)
    same = sum(c.answer == winner.answer for c in current)
    left_out["duplicate"] += same - 1
    left_out["contradicted"] += len(current) - same
    return _Winner(
        winner,
        first_at=min(c.asked_at for c in group),
        last_at=max(c.asked_at for c in current),
        current=bool(now),
        names=frozenset([group[0].row.input_hash, *(c.row.trace_id for c in group)]),
        requests=requests,
        frequent=frequent,
        answers=_answers(winner, given) if frequent and now else [],
    )


def _corrected(candidates: Iterable[_Candidate]) -> bool:
    return any(c.row.origin == "correction" for c in candidates)


def _answers(winner: _Candidate, given: Iterable[_Candidate]) -> list[TeacherAnswer]:
    """What the answer to a frequent input should have been, each time: a correction for all."""
    corrected = winner.row.origin == "correction"
    return [
        TeacherAnswer(
            trace_id=winner.row.trace_id if corrected else c.row.trace_id,
            text=winner.row.target if corrected else c.row.target,
        )
        for c in given
    ]


def _split(
    chosen: Sequence[_Winner],
    shares: SplitSettings,
    since: float,
    left_out: Counter[str],
    *,
    earlier: UsedInputs | None,
    now: float | None,
) -> tuple[list[Row], Splits]:
    """The rows of these winners with their groups and splits; counts those that are left out.

    `since`: see `suspect_since` of choose_rows.
    """
    groups = group(
        [
            Member(
                name=c.row.input_hash,
                at=one.first_at,
                users=c.users,
                text=c.text,
                answer=c.answer,
            )
            for one in chosen
            for c in (one.candidate,)
        ]
    )
    openings = {groups.names[place] for place in groups.openings}
    members: defaultdict[str, list[_Winner]] = defaultdict(list)
    for one, name in zip(chosen, groups.names, strict=True):
        members[name].append(one)
    splits = split_groups(
        [
            SplitGroup(
                name=name,
                began=min(one.first_at for one in of_group),
                can_judge=name not in openings and any(_judges(one, since) for one in of_group),
                learned=any(_learned(one.names, earlier) for one in of_group),
                judged=any(_judged(one.names, earlier) for one in of_group),
            )
            for name, of_group in members.items()
        ],
        shares,
        now=now,
    )
    split = [splits.by_name[name] for name in groups.names]
    near = {
        min(pair, key=lambda place: SPLITS.index(split[place]))
        for pair in groups.close
        if split[pair[0]] != split[pair[1]]
        and not chosen[max(pair, key=lambda place: SPLITS.index(split[place]))].frequent
    }
    numbers: dict[str, int] = {}
    rows = []
    for place, (one, name) in enumerate(zip(chosen, groups.names, strict=True)):
        number = numbers.setdefault(name, len(numbers))
        if one.frequent and (place in near or split[place] != "train"):
            # neither learned nor one of those that stand for others
            unlearned: Split = "calibration" if split[place] == "train" else split[place]
            rows.append(replace(one.candidate.row, split=unlearned, group=number, frequent=True))
        elif place in near:
            left_out["near_judged"] += 1
        elif split[place] != "train" and not _judges(one, since):
            left_out["outdated" if one.last_at < since else "other_snapshot"] += 1
        else:
            rows.append(
                replace(one.candidate.row, split=split[place], group=number, frequent=one.frequent)
            )
    return rows, splits


def _judges(one: _Winner, since: float) -> bool:
    """Whether a row may be a calibration or a held-out row."""
    return one.current and one.last_at >= since


def _learned(names: AbstractSet[str], used: UsedInputs | None) -> bool:
    """Whether an earlier run has learned from an input, by its hash or its traces' ids."""
    return used is not None and (
        bool(names & used.learned)
        or (
            bool(used.expired)
            and any(digest_of(used.salt, "input", name) in used.expired for name in names)
        )
    )


def _judged(names: AbstractSet[str], used: UsedInputs | None) -> bool:
    return used is not None and bool(names & used.judged)


def _candidate(exchange: LoggedExchange, lesson: Lesson, shape: Shape) -> _Candidate:
    messages = exchange.request.messages
    if shape.values:
        of_input = input_hash(messages, shape.values)
    else:
        of_input = exchange.input_hash or input_hash(messages)
    row = Row(
        trace_id=exchange.trace_id,
        input_hash=of_input,
        split="train",  # until _split decides
        fingerprint=shape.name,
        model=exchange.model,
        messages=messages,
        params=lesson.params,
        target=lesson.target,
        origin="correction" if exchange.kind == "correction" else "trace",
    )
    users, text = said(messages, shape.values)
    return _Candidate(
        exchange.asked_at,
        exchange.answered_at,
        row,
        users=users,
        text=text,
        answer=normal_answer(row.target),
        snapshot=exchange.snapshot,
        given=_given(exchange, lesson),
        counted=counted(exchange),
    )


def _given(exchange: LoggedExchange, lesson: Lesson) -> GivenAnswer | None:
    if exchange.kind == "correction":
        return None
    if exchange.kind == "audit":  # its tokens are not those of the logged answer
        return GivenAnswer(lesson.target)
    limits = (lesson.params.get(name) for name in ("max_completion_tokens", "max_tokens"))
    limit = next((one for one in limits if isinstance(one, int)), None)
    return GivenAnswer(lesson.target, exchange.output_tokens, limit)


def _elected(group: list[_Candidate]) -> _Candidate:
    """The newest correction, else the newest of the answers that are commonest."""
    corrections = [c for c in group if c.row.origin == "correction"]
    if corrections:
        return max(corrections, key=lambda c: c.order)
    votes = Counter(c.answer for c in group)
    return max(group, key=lambda c: (votes[c.answer], c.order))


def count_groups(rows: Sequence[Row]) -> int:
    """How many groups these rows are."""
    return len({row.group for row in rows} - {None}) + sum(row.group is None for row in rows)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON lines; readers see the whole file or none."""
    lines = (orjson.dumps(asdict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    write_atomically(path, b"".join(lines))


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote."""
    rows = [Row(**line) for line in read_lines(path)]
    shared: dict[bytes, Any] = {}  # thousands of rows have the same tools
    for row in rows:
        if tools := row.params.get("tools"):
            row.params["tools"] = shared.setdefault(orjson.dumps(tools), tools)
    return rows
