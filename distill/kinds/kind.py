"""A student kind: how a task is learned, and by what process its student answers.

Every kind learns from the same rows and answers the same wire: a chat completion with the token
log-probabilities that the confidence is computed from (store.chat.student_wire). So the evaluation,
the proxy, shadow, audits and forgetting do not know which kind a student is of. A kind is one
module here and its line in distill.kinds.registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from distill.dataset.answers import Answers
from distill.dataset.rows import Row
from distill.run.progress import Progress
from distill.run.run import Run
from distill.students.students import StudentProcess, StudentSpec
from store.jsontext import JsonObject
from store.records import Example, KindName
from store.settings.tasks import StudentSettings, TaskSettings


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained student, on disk."""

    adapter: Path  # the folder that holds what was learned
    trained_on: str  # `real` or `real+synthetic`
    kind: KindName = "lora"
    base: str = ""  # of a kind that adapts one
    numbers: JsonObject = field(default_factory=dict)  # of the training, for the run's history

    def spec(self, student_id: str, settings: StudentSettings) -> StudentSpec:
        """What to serve."""
        return StudentSpec(student_id, self.base, self.adapter, settings, self.kind)


class StudentKind(Protocol):
    """A way to learn a task. Its methods are called by the pipeline and the supervisor alone."""

    @property
    def name(self) -> KindName:
        """As settings, history and status call it."""

    @property
    def learns_examples(self) -> bool:
        """Whether synthetic examples help it; without it none are paid for."""

    def unfit(self, answers: Answers, settings: TaskSettings) -> str:
        """Why it cannot learn answers like these on this machine; empty when it can."""

    async def train(
        self,
        run: Run,
        real: Sequence[Row],
        calibration: Sequence[Row],
        examples: Sequence[Example],
        progress: Progress,
    ) -> Trained:
        """Trains a student in the run's folder, or finds the same one there.

        The calibration rows may choose between settings or checkpoints; nothing is learned from
        them. Raises TrainingError.
        """

    def servers(self, log_dir: Path) -> Callable[[StudentSpec], StudentProcess]:
        """Makes the servers of students, not started; all log into `log_dir`.

        The students of one maker may share a process.
        """
