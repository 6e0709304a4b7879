"""The evaluated rows of a run by split; no other code filters evaluations by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.records import Evaluation, EvaluationSplit


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Rows that a student answered, each with its score."""

    rows: Sequence[Evaluation]

    @property
    def calibration(self) -> list[Evaluation]:
        """The rows that confidence and cutoffs are chosen on."""
        return self._of("calibration")

    @property
    def heldout(self) -> list[Evaluation]:
        """The rows that certify the student. Nothing may be chosen on them."""
        return self._of("heldout")

    @property
    def frequent(self) -> list[Evaluation]:
        """The frequent inputs, each of which is checked by itself."""
        return self._of("frequent")

    def _of(self, split: EvaluationSplit) -> list[Evaluation]:
        return [row for row in self.rows if row.split == split]
