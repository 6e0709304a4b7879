"""The synthetic inputs of a run until they become examples: open, kept or rejected.

No I/O. The records that go in are the lines of the run's files, so a replay gives the same result
as the live run.
"""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from distill.amplify.checks import Fault, answer_fault, input_fault
from distill.amplify.diversity import Aims
from distill.amplify.near_duplicates import NearDuplicates
from distill.amplify.policy import TaskPolicy
from distill.dataset.answers import Answers
from distill.dataset.rows import Row
from distill.dataset.texts import user_text
from store.chat.shape import Messages, input_hash
from store.records import Example

DRY_BATCHES = 5  # batches in a row without a new example after which no more are bought


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsLine:
    """One paid call for a batch of inputs: a line of inputs.jsonl."""

    batch: int
    at: float
    model: str
    inputs: list[str]
    fault: str  # why there are none; empty: there are
    tokens: dict[str, int]  # input and output
    context: list[str]  # trace ids of the real rows that were shown
    shown: list[str] = field(default_factory=list)  # ids of the synthetic inputs to differ from


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLine:
    """One paid call for the answer to an input: a line of answers.jsonl."""

    example_id: str
    at: float
    text: str | None
    finish_reason: str
    fault: str  # why there is no answer; empty: there is one
    tokens: dict[str, int]  # input and output


@dataclass(slots=True)
class InputCandidate:
    """One synthetic input. It is open until it is kept or rejected."""

    example_id: str
    text: str
    template: Row  # the row whose messages and parameters it is asked with
    parents: list[
        str
    ]  # ids of all that its prompt showed: rows, synthetic inputs, the policy's run
    input_hash: str
    model: str
    created_at: float
    fault: str | None = None
    kept: bool = False
    target: str = ""

    @property
    def messages(self) -> Messages:
        return with_input(self.template.messages, self.text)

    @property
    def open(self) -> bool:
        return not self.kept and self.fault is None


class CandidatePool:
    """All synthetic inputs that a run has bought so far."""

    def __init__(
        self,
        *,
        run_id: str,
        task: str,
        policy: TaskPolicy,
        answers: Answers,
        rows: Sequence[Row],
        forbidden: set[str],
        near_duplicate: float,
    ) -> None:
        self._run_id = run_id
        self._task = task
        self._policy = policy
        self._rows = {row.trace_id: row for row in rows}
        self._answers = answers
        self._taken = set(forbidden)
        self._near = NearDuplicates(near_duplicate, (user_text(row.messages) for row in rows))
        self._batches: list[list[InputCandidate]] = []
        self._by_id: dict[str, InputCandidate] = {}
        self.aims = Aims(answers, [row.target for row in rows])
        self.aimed: Counter[str] = Counter()  # kept examples by their aim (see Aims.of)
        self.open: deque[InputCandidate] = deque()  # in the order in which they are asked
        self.kept = 0

    @property
    def batches(self) -> int:
        return len(self._batches)

    @property
    def rejected(self) -> Counter[str]:
        """How many were rejected, by reason."""
        return Counter(c.fault for c in self._by_id.values() if c.fault)

    @property
    def dry(self) -> bool:
        """Whether the last DRY_BATCHES batches gave no example; those still open do not count."""
        useless = 0
        for batch in reversed(self._batches):
            if any(c.kept for c in batch):
                break
            useless += not any(c.open for c in batch)
        return useless >= DRY_BATCHES

    def latest(self, count: int) -> list[InputCandidate]:
        """The latest inputs that passed the checks of inputs."""
        passed = [c for c in self._by_id.values() if c.kept or c.open]
        return passed[-count:]

    def add_inputs(self, line: InputsLine) -> None:
        """Adds a batch and checks each of its inputs."""
        number = len(self._batches)
        context = [self._rows[trace_id] for trace_id in line.context]
        parents = [*line.context, *line.shown, self._run_id]
        batch = []
        for index, text in enumerate(line.inputs):
            template = context[index % len(context)]
            candidate = InputCandidate(
                example_id=str(uuid.uuid5(_NAMESPACE, f"{self._run_id}/{number}/{index}/{text}")),
                text=text,
                template=template,
                parents=parents,
                input_hash=input_hash(with_input(template.messages, text)),
                model=line.model,
                created_at=line.at,
            )
            candidate.fault = _word(self._input_fault(candidate))
            if candidate.open:
                self._taken.add(candidate.input_hash)
                self._near.add(text)
                self.open.append(candidate)
            self._by_id[candidate.example_id] = candidate
            batch.append(candidate)
        self._batches.append(batch)

    def add_answer(self, line: AnswerLine) -> None:
        """Adds an answer to one of the inputs and checks it."""
        candidate = self._by_id.get(line.example_id)
        if candidate is None:
            return  # the line with its input was lost
        candidate.target = line.text or ""
        candidate.fault = line.fault or _word(
            answer_fault(
                line.text,
                line.finish_reason,
                answers=self._answers,
                policy=self._policy,
                request=candidate.template.params,
            )
        )
        candidate.kept = candidate.fault is None
        if candidate.kept:
            self.kept += 1
            aim = self.aims.of(candidate.target)
            if aim is not None:
                self.aimed[aim] += 1

    def drop_open(self, answered: set[str]) -> None:
        """Removes answered inputs from the queue, after a replay."""
        self.open = deque(c for c in self.open if c.example_id not in answered)

    def examples(self) -> list[Example]:
        """Every candidate as an example, kept or rejected, in the order of purchase."""
        return [self._example(c) for c in self._by_id.values()]

    def _input_fault(self, candidate: InputCandidate) -> Fault | None:
        fault = input_fault(candidate.text, self._policy)
        if fault is None and candidate.input_hash in self._taken:
            return Fault.DUPLICATE
        if fault is None and candidate.text in self._near:
            return Fault.NEAR_DUPLICATE
        return fault

    def _example(self, candidate: InputCandidate) -> Example:
        return Example(
            example_id=candidate.example_id,
            task=self._task,
            run_id=self._run_id,
            origin="synthetic",
            split="train",
            status="kept" if candidate.kept else "rejected",
            reason="passed" if candidate.kept else candidate.fault or Fault.NOT_ASKED.value,
            input_messages=orjson.dumps(candidate.messages).decode(),
            target=candidate.target,
            input_hash=candidate.input_hash,
            parent_ids=candidate.parents,
            generator_model=candidate.model,
            created_at=candidate.created_at,
        )


_NAMESPACE = uuid.UUID("5b0f7c1e-6f0a-5d2a-9d0e-2f1c8a4be001")


def _word(fault: Fault | None) -> str | None:
    """The fault as a plain string, as files store it."""
    return None if fault is None else fault.value


def with_input(messages: Messages, text: str) -> Messages:
    """The messages with another text in the last message."""
    return [*messages[:-1], {**messages[-1], "content": text}]
