"""The synthetic inputs of a run on their way to becoming examples: what is open, kept, rejected.

No I/O: what was bought goes in, live or replayed from a file alike, and gives the same result.
"""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

DRY_BATCHES = 5  # so many in a row without a new example: the teacher has no more to give


@dataclass(slots=True)
class Candidate:
    """One synthetic input. It is open until it is kept or rejected."""

    example_id: str
    text: str
    template: Row  # whose messages and parameters it is asked with
    parents: list[str]  # ids of the real rows that it was written from, and of what else was shown
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


class Candidates:
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
        self._batches: list[list[Candidate]] = []
        self._by_id: dict[str, Candidate] = {}
        self.aims = Aims(answers, [row.target for row in rows])
        self.aimed: Counter[str] = Counter()  # synthetic examples by what their answer says
        self.open: deque[Candidate] = deque()  # in the order in which they are to be asked
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
        """Whether so many batches in a row have brought nothing; those still open do not count."""
        in_vain = 0
        for batch in reversed(self._batches):
            if any(c.kept for c in batch):
                break
            in_vain += not any(c.open for c in batch)
        return in_vain >= DRY_BATCHES

    def latest(self, count: int) -> list[Candidate]:
        """The latest inputs that passed the checks of inputs."""
        passed = [c for c in self._by_id.values() if c.kept or c.open]
        return passed[-count:]

    def admit(self, line: Mapping[str, Any]) -> None:
        """Takes a batch in, as it stands in the file of inputs, and checks each of its inputs."""
        number = len(self._batches)
        context = [self._rows[trace_id] for trace_id in line["context"]]
        # all that stood in the prompt; the policy goes by the id of its run
        parents = [*line["context"], *line.get("shown", ()), self._run_id]
        batch = []
        for index, text in enumerate(line["inputs"]):
            template = context[index % len(context)]
            candidate = Candidate(
                example_id=str(uuid.uuid5(_NAMESPACE, f"{self._run_id}/{number}/{index}/{text}")),
                text=text,
                template=template,
                parents=parents,
                input_hash=input_hash(with_input(template.messages, text)),
                model=line["model"],
                created_at=line["at"],
            )
            candidate.fault = _word(self._input_fault(candidate))
            if candidate.open:
                self._taken.add(candidate.input_hash)
                self._near.add(text)
                self.open.append(candidate)
            self._by_id[candidate.example_id] = candidate
            batch.append(candidate)
        self._batches.append(batch)

    def settle(self, line: Mapping[str, Any]) -> None:
        """Takes an answer in, as it stands in the file of answers, and checks it."""
        candidate = self._by_id.get(line["example_id"])
        if candidate is None:
            return  # its input stood in a line that was lost
        candidate.target = line["text"] or ""
        candidate.fault = line["fault"] or _word(
            answer_fault(
                line["text"],
                line["finish_reason"],
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
        """Takes those that have been answered out of the queue; after a replay."""
        self.open = deque(c for c in self.open if c.example_id not in answered)

    def examples(self) -> list[Example]:
        """Every candidate as an example, kept or rejected, in the order they were bought."""
        return [self._example(c) for c in self._by_id.values()]

    def _input_fault(self, candidate: Candidate) -> Fault | None:
        fault = input_fault(candidate.text, self._policy)
        if fault is None and candidate.input_hash in self._taken:
            return Fault.DUPLICATE
        if fault is None and candidate.text in self._near:
            return Fault.NEAR_DUPLICATE
        return fault

    def _example(self, candidate: Candidate) -> Example:
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
    """The fault as a plain string, as it comes back from a file."""
    return None if fault is None else fault.value


def with_input(messages: Messages, text: str) -> Messages:
    """The messages with another text as what the user says last."""
    return [*messages[:-1], {**messages[-1], "content": text}]
