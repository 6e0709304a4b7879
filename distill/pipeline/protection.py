"""Protected labels of a run's rows: which labels there are, and whether a proof is possible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from distill.dataset.answers import Answers
from distill.dataset.rows import Row, Selection
from distill.dataset.texts import is_short
from distill.gate.gate import attempt_alpha
from distill.gate.recall import protection_of
from distill.run.run import some_groups
from store.chat.labels import field_of, labels_of
from store.settings.tasks import GateSettings, TaskSettings


def labels_of_rows(rows: Sequence[Row], answers: Answers, gate: GateSettings) -> frozenset[str]:
    """The labels that these rows have, and the protected ones of any kind that they have.

    Values of JSON fields are labels where the field is a closed set; long answers are no labels.
    """
    labels = frozenset[str]().union(*(labels_of(row.target, answers.kind) for row in rows))
    protected = protection_of(gate, answers.kind, 1.0).names
    if answers.kind == "json":
        kept = {label for label in labels if field_of(label) in answers.fields}
    else:
        kept = {label for label in labels if answers.kind != "label" or is_short(label)}
    return frozenset(kept.union(labels.intersection(protected)))


def protection_shortage(
    selection: Selection, answers: Answers, settings: TaskSettings, attempt: int
) -> str:
    """Why these rows cannot prove the recall of a protected label; empty when they can.

    Costs nothing to know, as `distill.pipeline.rows.shortage`. `attempt`: see there.
    """
    if not settings.gate.protect:
        return ""
    known = labels_of_rows(selection.rows, answers, settings.gate)
    alpha = attempt_alpha(settings.gate, attempt)
    protection = protection_of(settings.gate, answers.kind, alpha, known)
    judged = some_groups(selection.heldout, settings.evaluate.max_rows)
    fault = protection.shortage(_groups_by_label(judged, answers))
    if fault and not protection.shortage(_groups_by_label(selection.heldout, answers)):
        fault += f"; more were logged than the {settings.evaluate.max_rows} of evaluate.max_rows"
    return fault


def _groups_by_label(rows: Sequence[Row], answers: Answers) -> dict[str, int]:
    """How many groups of these rows have each label."""
    groups: defaultdict[str, set[object]] = defaultdict(set)
    for place, row in enumerate(rows):
        for label in labels_of(row.target, answers.kind):
            groups[label].add(("row", place) if row.group is None else row.group)
    return {label: len(found) for label, found in groups.items()}
