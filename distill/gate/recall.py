"""The recall of each label: how often the student gives it where the teacher does.

It is of what the student serves, as all of the certificate is: a row that it does not serve gets
the teacher's own answer, so clients see at least this recall. A student gives a label when its
answer agrees with the teacher's and has that label too; this is compared exactly, also where a
judge scores the answers or where a part of them is enough to agree.

Each label has a lower bound of its own, over the groups in which the teacher gives it
(distill.gate.bounds, at the attempt's error probability). It is *proven* when that reaches the
floor, and the certificate names the others. Labels that `gate.protect` names must be proven, or
nothing is certified. As each of them has to, none needs a share of another's error probability: a
protected label whose recall lies below the floor passes with at most that probability, over all
cutoffs that are tested in order (distill.gate.cutoffs).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from distill.gate.bounds import fewest, lower_bound
from distill.gate.groups import GroupCounts, GroupedRows
from store.chat.labels import field_of, labels_of
from store.chat.normal_form import normal_text
from store.records import Evaluation, OutputKind, Recall
from store.settings.tasks import GateSettings

MAX_RECALLS = 1000  # in a certificate; the lowest ones are kept
MANY_TIMES = 1000  # the rows at hand, from which on a proof is out of reach


def floor_of(gate: GateSettings) -> float:
    """The agreement that no slice may lie below, and that a protected label must reach."""
    return max(0.0, gate.threshold - gate.slice_tolerance)


def labels_in(row: Evaluation, output: OutputKind, fields: Collection[str] = ()) -> frozenset[str]:
    """The labels of the teacher's answer. `fields`: of JSON answers, those that have labels."""
    labels = labels_of(row.teacher_output, output)
    return labels if output != "json" else frozenset(x for x in labels if field_of(x) in fields)


def gives(row: Evaluation, label: str, output: OutputKind, *, exactly: bool = False) -> bool:
    """Whether the student agrees, with the label that the teacher gives.

    A judge's verdict decides by itself, unless it is asked `exactly`.
    """
    if not row.agrees or (row.scorer == "judge" and not exactly):
        return row.agrees
    return label in labels_of(row.student_output or "", output)


class LabelledRows:
    """Evaluated rows with the labels that the teacher gives, and whether the student does too."""

    def __init__(
        self,
        rows: Sequence[Evaluation],
        output: OutputKind,
        *,
        fields: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> None:
        """`fields`: of JSON answers, those that have labels. `only`: these labels, of any field."""
        self._grouped = GroupedRows(rows)
        self._rows: defaultdict[str, dict[int, bool]] = defaultdict(dict)  # place: is given
        for place, row in enumerate(rows if output != "text" else ()):
            labels = (
                labels_in(row, output, fields)
                if only is None
                else labels_of(row.teacher_output, output).intersection(only)
            )
            for label in labels:
                self._rows[label][place] = gives(row, label, output, exactly=True)

    @property
    def names(self) -> list[str]:
        """All labels, sorted."""
        return sorted(self._rows)

    def counts(self, label: str, served: Collection[int]) -> GroupCounts:
        """The groups in which the teacher gives a label, of the rows at these places."""
        given = {place: agrees for place, agrees in self._rows[label].items() if place in served}
        return self._grouped.counts(list(given), list(given.values()))


def recalls_of(
    rows: LabelledRows, served: Collection[int], names: Iterable[str], alpha: float
) -> list[Recall]:
    """The recall of these labels, of the rows at these places, which are served."""
    recalls = []
    for name in names:
        counts = rows.counts(name, served)
        low = lower_bound(counts.agreed, counts.groups, alpha) if counts.groups else 0.0
        recalls.append(Recall(name=name, n=counts.groups, agreed=counts.agreed, low=low))
    return recalls


# ---- protected labels --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Protection:
    """What the protected labels of a task demand of its student."""

    names: Sequence[str]
    output: OutputKind
    floor: float  # the recall that has to be proven
    alpha: float  # error probability of the proof
    known: Collection[str] | None = None  # the labels that the task has; None: not known

    def needed(self) -> int:
        """The fewest groups that prove it, without a disagreement."""
        return fewest(self.floor, self.alpha)

    def shortage(self, counts: Mapping[str, int]) -> str:
        """Why no student can be proven on these rows; empty when one can.

        `counts`: the held-out groups that have each label.
        """
        faults = []
        for name in self.names:
            fault = self._impossible(name)
            if not fault and counts.get(name, 0) < self.needed():
                fault = (
                    f"{counts.get(name, 0)} held-out groups have it, but a recall of "
                    f"{self.floor:.4g} needs {self.needed()} even without a disagreement"
                )
            if fault:
                faults.append(f"protected {name}: {fault}")
        return "; ".join(faults)

    def objection(self, recall: Recall, unit: str) -> str:
        """Why a protected label is not proven, with what is missing; empty when it is.

        `unit`: what is counted, groups or rows.
        """
        fault = self._impossible(recall.name)
        if not fault and recall.low < self.floor:
            fault = (
                f"agrees on {recall.agreed:g} of {recall.n} served held-out {unit}, lower bound "
                f"{recall.low:.3f} < {self.floor:.4g}; {self._missing(recall)}"
            )
        return f"protected {recall.name}: {fault}" if fault else ""

    def _impossible(self, name: str) -> str:
        if self.output == "text":
            return "answers in free text have no labels"
        if self.known is not None and name not in self.known:
            return "no answer of the teacher has it; correct gate.protect, or take it out there"
        return ""

    def _missing(self, recall: Recall) -> str:
        """Roughly how many more groups are needed, if the student goes on like this."""
        if not recall.n:
            return f"{self.needed()} are needed even without a disagreement"
        enough = _enough(recall.agreed / recall.n, self.floor, self.alpha, recall.n)
        if enough is None:
            return "if it goes on like this, more of them will not prove it"
        return f"about {enough - recall.n} more are needed if it goes on like this"


def protection_of(
    gate: GateSettings, output: OutputKind, alpha: float, known: Collection[str] | None = None
) -> Protection:
    """The protected labels of a task, in the form in which answers are compared, each once."""
    names = list(dict.fromkeys(map(normal_text, gate.protect)))
    return Protection(names, output, floor_of(gate), alpha, known)


def _enough(share: float, floor: float, alpha: float, at_least: int) -> int | None:
    """How many groups prove the floor, with this share of them agreeing; None: out of reach."""
    if share <= floor:
        return None
    few, many = at_least, at_least
    while lower_bound(share * many, many, alpha) < floor:
        few, many = many, 2 * many
        if many > MANY_TIMES * at_least:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        if lower_bound(share * middle, middle, alpha) < floor:
            few = middle
        else:
            many = middle
    return many
