"""The worst slice: no fingerprint, label or call may lie far below the threshold of the whole.

A mean over all rows hides a small part of the traffic that goes wrong. So the served rows of each
fingerprint, and of each of the teacher's labels or calls, are tested by themselves: an exact
binomial test of "it agrees at least as often as the floor", with Holm's procedure over all slices.
Of the rows of one group that are in a slice, one is drawn by a hash of its input: the binomial test
needs independent rows that agree or do not, and a draw that the outcomes have no part in keeps the
rate of agreement.
When all slices reach the floor, the probability that any is reported as below is at most
1 - confidence.

Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics
6 (1979), https://www.jstor.org/stable/4615733
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from distill.gate.groups import group_numbers
from store.chat.normal_form import normal_text
from store.chat.tools import read_tool_answer
from store.hashing import uniform
from store.records import (
    Evaluation,
    OutputKind,
    Slice,
    SliceKind,
)
from store.settings.tasks import GateSettings

RARE = "(all with fewer)"  # the slice of all labels or calls that are too rare for one of their own


def floor_of(gate: GateSettings) -> float:
    """The agreement that no slice may lie below."""
    return max(0.0, gate.threshold - gate.slice_tolerance)


def slices_of(served: Sequence[Evaluation], output: OutputKind, gate: GateSettings) -> list[Slice]:
    """Every slice with at least `min_slice_rows` of these groups, the most suspicious one first.

    Labels and calls with fewer make one slice together, however few they are: a student that never
    gives a rare answer does not pass because each is rare.
    """
    from scipy.stats import binom  # noqa: PLC0415 - slow to import

    drawn: dict[tuple[SliceKind, str], dict[int, bool]] = defaultdict(dict)  # agreement by group
    numbered = zip(group_numbers(served), served, strict=True)
    for group, row in sorted(numbered, key=lambda one: _draw(one[1])):
        drawn["fingerprint", row.fingerprint].setdefault(group, row.agrees)
        if output == "label":
            drawn["label", normal_text(row.teacher_output)].setdefault(group, row.agrees)
        elif output == "tools":
            drawn["call", _call(row)].setdefault(group, row.agrees)
    rare: dict[tuple[SliceKind, str], dict[int, bool]] = defaultdict(dict)
    for (kind, _), groups in drawn.items():
        if len(groups) < gate.min_slice_rows and kind != "fingerprint":
            for group, agrees in sorted(groups.items()):
                rare[kind, RARE].setdefault(group, agrees)
    large = {key: groups for key, groups in drawn.items() if len(groups) >= gate.min_slice_rows}
    slices = [
        Slice(
            kind=kind,
            name=name,
            n=len(groups),
            agreed=sum(groups.values()),
            p_value=float(binom.cdf(sum(groups.values()), len(groups), floor_of(gate))),
            below=False,
        )
        for (kind, name), groups in [*large.items(), *rare.items()]
    ]
    return holm(slices, 1 - gate.confidence)


def holm(slices: Iterable[Slice], alpha: float) -> list[Slice]:
    """The slices in the order of their p-values; `below` by Holm's procedure at this level."""
    ordered = sorted(slices, key=attrgetter("p_value", "kind", "name"))
    results: list[Slice] = []
    below = True
    for place, part in enumerate(ordered):
        below = below and part.p_value <= alpha / (len(ordered) - place)
        results.append(replace(part, below=below))
    return results


def _draw(evaluation: Evaluation) -> float:
    return uniform(evaluation.input_hash.encode(), purpose=b"slice")


def _call(evaluation: Evaluation) -> str:
    """The functions that the teacher calls, or `none`."""
    answer = read_tool_answer(evaluation.teacher_output)
    return " + ".join(answer.names) if answer is not None and answer.calls else "none"
