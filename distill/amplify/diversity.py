"""Plans the batches of synthetic inputs so that they differ from each other.

Without guidance a teacher writes the same typical inputs again and again. So every batch shows
other real rows, and every input has its own length, its own difficulty and, where answers repeat,
its own target answer: the rarest one so far.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import orjson
from pydantic import BaseModel, Field

from distill.amplify.policy import TaskPolicy, production_parts
from distill.dataset.answers import REPEATED_BELOW, Answers, share_seen_once
from distill.dataset.rows import Row
from distill.dataset.texts import is_short, parsed, shortened, user_text
from store.chat.normal_form import normal_answer, normal_text
from store.chat.shape import Messages
from store.chat.tools import read_tool_answer
from store.settings.tasks import AmplifySettings

DIFFICULTIES = {"easy": 1, "typical": 2, "hard": 1}  # relative frequency of each
RECENT = 20  # latest synthetic inputs that a prompt shows as not to be repeated
RECENT_CHARS = 160


class SyntheticInputs(BaseModel):
    """New inputs for the task, as its users would write them, without answers."""

    inputs: list[str] = Field(description="one new input for each wanted line, in that order")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input that a batch asks for."""

    min_chars: int
    max_chars: int
    difficulty: str
    aim: str | None  # the answer that it should lead to; None: any


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One call for synthetic inputs."""

    context: list[Row]  # real rows of one fingerprint: the examples
    inputs: list[InputSpec]
    avoid: list[str]  # the latest synthetic inputs


class Aims:
    """The answers that one can ask for: labels, whole answers that repeat, the functions that are
    called, or the fields of JSON objects whose values repeat."""

    def __init__(self, answers: Answers, targets: Sequence[str]) -> None:
        """`targets`: the answers of the train rows, the only ones that are asked for."""
        self._answers = answers
        self._fields = () if answers.repeated else _repeating_fields(targets)
        counts = Counter(aim for aim in map(self.of, targets) if aim is not None)
        self.all = [aim for aim, _ in counts.most_common()]

    def of(self, target: str) -> str | None:
        """The part of an answer that one can ask for; None when there is none."""
        if self._answers.kind == "label":
            label = normal_text(target)
            return label if is_short(label) else None  # an apology, say, is not asked for
        if self._answers.repeated:
            return normal_answer(target)
        answer = read_tool_answer(target)
        if answer is not None and answer.calls:
            return " + ".join(answer.names)
        value = parsed(target)
        if not self._fields or not isinstance(value, dict):
            return None
        fields = {name: value[name] for name in self._fields if name in value}
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()


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
            for name, field_values in values.items()
            if len(field_values) > len(targets) / 2
            and share_seen_once(field_values) < REPEATED_BELOW
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
    """Samples a batch. `so_far`: how many synthetic inputs there are for each aim."""
    counts = Counter(so_far)
    lengths = sorted(len(user_text(row.messages)) for row in rows)
    inputs = []
    for _ in range(settings.batch):
        aim = None
        if aims.all:
            fewest = min(counts[a] for a in aims.all)
            aim = rng.choice([a for a in aims.all if counts[a] == fewest])
            counts[aim] += 1
        third = rng.randrange(3)
        inputs.append(
            InputSpec(
                min_chars=lengths[third * (len(lengths) - 1) // 3],
                max_chars=lengths[(third + 1) * (len(lengths) - 1) // 3],
                difficulty=rng.choices(list(DIFFICULTIES), list(DIFFICULTIES.values()))[0],
                aim=aim,
            )
        )
    context = _context(rng, rows, settings.context, aims, [spec.aim for spec in inputs])
    return BatchPlan(context, inputs, list(avoid[-RECENT:]))


def _context(
    rng: Random, rows: Sequence[Row], count: int, aims: Aims, targets: Sequence[str | None]
) -> list[Row]:
    """Real rows of one fingerprint: first one for each aim of the batch, then any."""
    fingerprint = rng.choice(rows).fingerprint
    shuffled = [row for row in rows if row.fingerprint == fingerprint]
    rng.shuffle(shuffled)
    of_aim = {aims.of(row.target): row for row in shuffled}
    first = [of_aim[aim] for aim in dict.fromkeys(targets) if aim is not None and aim in of_aim]
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
    lines = "\n".join(_line(number, spec) for number, spec in enumerate(plan.inputs, start=1))
    parts.append(f"Write {len(plan.inputs)} new inputs, one for each of these lines:\n{lines}")
    return [
        {"role": "system", "content": _INSTRUCTION},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _line(number: int, spec: InputSpec) -> str:
    aim = f" answer='{shortened(spec.aim, RECENT_CHARS)}'" if spec.aim else ""
    length = f"{spec.min_chars}-{spec.max_chars} characters"
    return f"<wanted number='{number}' length='{length}' difficulty='{spec.difficulty}'{aim}/>"
