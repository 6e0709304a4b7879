"""What a batch of synthetic inputs is asked for with: how the batches are kept apart.

Left alone, a teacher writes the same typical inputs again and again. So every batch shows other
real rows, and every wanted input has its own length, difficulty and, where answers repeat, its own
answer to aim at, the one that is rarest so far.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import orjson
from pydantic import BaseModel, Field

from distill.amplify.policy import TaskPolicy, production_parts
from distill.dataset.answers import REPEATED_BELOW, Answers, is_short, parsed, share_seen_once
from distill.dataset.rows import Row
from distill.dataset.texts import shortened, user_text
from store.chat.normal_form import normal_answer, normal_text
from store.chat.shape import Messages
from store.chat.tools import read_said
from store.settings.tasks import AmplifySettings

DIFFICULTIES = {"easy": 1, "typical": 2, "hard": 1}  # how often each is wanted
RECENT = 20  # latest synthetic inputs that a prompt says to keep away from
RECENT_CHARS = 160


class SyntheticInputs(BaseModel):
    """New inputs for the task, as its users would write them, without answers."""

    inputs: list[str] = Field(description="one new input for each wanted line, in that order")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One input that is asked for."""

    shortest: int  # characters
    longest: int
    difficulty: str
    aim: str | None  # what its answer should say; None: anything


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One call for synthetic inputs."""

    context: list[Row]  # real rows of one fingerprint, shown as examples
    wanted: list[Wanted]
    avoid: list[str]  # synthetic inputs so far, the latest ones


class Aims:
    """The answers that one can ask for: labels, whole answers that repeat, the functions that are
    called, or the fields of JSON objects whose values repeat."""

    def __init__(self, answers: Answers, targets: Sequence[str]) -> None:
        """`targets`: the answers of the train rows; nothing else is asked for."""
        self._answers = answers
        self._fields = () if answers.repeated else _repeating_fields(targets)
        counts = Counter(aim for aim in map(self.of, targets) if aim is not None)
        self.all = [aim for aim, _ in counts.most_common()]

    def of(self, target: str) -> str | None:
        """What this answer says, as far as one can ask for it."""
        if self._answers.kind == "label":
            label = normal_text(target)
            return label if is_short(label) else None  # an apology is nothing to ask for
        if self._answers.repeated:
            return normal_answer(target)
        called = read_said(target)
        if called is not None and called.calls:
            return " + ".join(called.names)
        value = parsed(target)
        if not self._fields or not isinstance(value, dict):
            return None
        said = {name: value[name] for name in self._fields if name in value}
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()


def _repeating_fields(targets: Sequence[str]) -> tuple[str, ...]:
    values: defaultdict[str, list[str]] = defaultdict(list)
    for target in targets:
        answer = parsed(target)
        for name, value in answer.items() if isinstance(answer, dict) else ():
            if isinstance(value, str | bool):
                values[name].append(str(value))
    return tuple(
        sorted(
            name
            for name, said in values.items()
            if len(said) > len(targets) / 2 and share_seen_once(said) < REPEATED_BELOW
        )
    )


def plan_batch(
    rng: Random,
    rows: Sequence[Row],
    settings: AmplifySettings,
    *,
    aims: Aims,
    so_far: Mapping[str, int],
    avoid: Sequence[str],
) -> BatchPlan:
    """Draws a batch. `so_far` counts the synthetic inputs that each aim has got already."""
    counts = Counter(so_far)
    lengths = sorted(len(user_text(row.messages)) for row in rows)
    wanted = []
    for _ in range(settings.batch):
        aim = None
        if aims.all:
            fewest = min(counts[a] for a in aims.all)
            aim = rng.choice([a for a in aims.all if counts[a] == fewest])
            counts[aim] += 1
        third = rng.randrange(3)
        wanted.append(
            Wanted(
                shortest=lengths[third * (len(lengths) - 1) // 3],
                longest=lengths[(third + 1) * (len(lengths) - 1) // 3],
                difficulty=rng.choices(list(DIFFICULTIES), list(DIFFICULTIES.values()))[0],
                aim=aim,
            )
        )
    context = _context(rng, rows, settings.context, aims, [w.aim for w in wanted])
    return BatchPlan(context, wanted, list(avoid[-RECENT:]))


def _context(
    rng: Random, rows: Sequence[Row], count: int, aims: Aims, wanted: Sequence[str | None]
) -> list[Row]:
    """Real rows of one fingerprint: first one for each answer that is aimed at, then any."""
    fingerprint = rng.choice(rows).fingerprint
    shuffled = [row for row in rows if row.fingerprint == fingerprint]
    rng.shuffle(shuffled)
    of_aim = {aims.of(row.target): row for row in shuffled}
    first = [of_aim[aim] for aim in dict.fromkeys(wanted) if aim is not None and aim in of_aim]
    chosen = {row.input_hash: row for row in (*first, *shuffled)}
    return list(chosen.values())[:count]


_INSTRUCTION = """\
You write inputs for a task that a language model is used for, as its real users would write them. \
Never answer them. Each input is about another situation than the examples, the recent inputs and \
the other new ones: change what it is about, its wording, its names and its numbers, not just a \
word. Keep the kind, the language and the imperfections of the examples."""


def inputs_prompt(plan: BatchPlan, policy: TaskPolicy) -> Messages:
    """The messages that ask for a batch of synthetic inputs."""
    parts = production_parts(plan.context[0])
    parts.append(f"<policy>\n{policy.model_dump_json()}\n</policy>")
    parts += [
        f"<example>\n<input>\n{shortened(user_text(row.messages))}\n</input>\n"
        f"<answer>\n{shortened(row.target)}\n</answer>\n</example>"
        for row in plan.context
    ]
    if plan.avoid:
        recent = "\n".join(f"- {shortened(text, RECENT_CHARS)}" for text in plan.avoid)
        parts.append(f"<recent>\n{recent}\n</recent>")
    lines = "\n".join(_line(number, w) for number, w in enumerate(plan.wanted, start=1))
    parts.append(f"Write {len(plan.wanted)} new inputs, one for each of these lines:\n{lines}")
    return [
        {"role": "system", "content": _INSTRUCTION},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _line(number: int, wanted: Wanted) -> str:
    aim = f" answer='{shortened(wanted.aim, RECENT_CHARS)}'" if wanted.aim else ""
    length = f"{wanted.shortest}-{wanted.longest} characters"
    return f"<wanted number='{number}' length='{length}' difficulty='{wanted.difficulty}'{aim}/>"
