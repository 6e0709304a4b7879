"""The worst slice: no fingerprint and no label may lie far below the threshold of the whole.

A mean over all rows hides a small part of the traffic that goes wrong. So the served rows of each
fingerprint, and of each of the teacher's labels (store.chat.labels: labels, called functions,
values of JSON fields), are tested: an exact binomial test of "it agrees at least as often as the
floor". Of the rows of one group that are in a slice, one is drawn by a hash of its input: the
binomial test needs independent rows that agree or do not, and a draw that the outcomes have no part
in keeps the rate of agreement.

When all slices reach the floor, the probability that any is reported as below is at most
1 - confidence. Half of it is for the fingerprints and the labels with many rows, by Holm's
procedure; half for the rare labels: for each with what it has, and for all of them together. A
label with so few rows that not even a student that is always wrong could be proven to be, costs the
others nothing: Tarone's procedure counts those alone that could.

Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics
6 (1979), https://www.jstor.org/stable/4615733; Tarone, "A modified Bonferroni method for discrete
data", Biometrics 46 (1990), https://doi.org/10.2307/2531456; its steps: Hommel and Krummenauer,
"Improvements and modifications of Tarone's multiple test procedure for discrete data", Biometrics
54 (1998), https://doi.org/10.2307/3109773
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from distill.gate.groups import group_numbers
from distill.gate.recall import floor_of, gives, labels_in
from store.hashing import uniform
from store.records import (
    Evaluation,
    OutputKind,
    Slice,
    SliceKind,
)
from store.settings.tasks import GateSettings

RARE = "(all with fewer)"  # the slice of all labels that are too rare for the larger ones
KINDS: dict[OutputKind, SliceKind] = {"label": "label", "tools": "call", "json": "field"}


def slices_of(
    served: Sequence[Evaluation],
    output: OutputKind,
    gate: GateSettings,
    fields: Collection[str] = (),
) -> list[Slice]:
    """Every slice that was tested, the most suspicious one first.

    `fields`: of JSON answers, those whose values are labels. Rare are labels with fewer than
    `min_slice_rows` of these groups. Such a one is listed if it could have been proven to lie
    below, and all of them together are one slice.
    """
    large, rare = _parts(served, output, gate, fields)
    alpha = 1 - gate.confidence
    if large and rare:
        alpha /= 2
    found = [*holm(large, alpha), *tarone(rare, alpha, floor_of(gate))]
    return sorted(found, key=attrgetter("p_value", "kind", "name"))


def _parts(
    served: Sequence[Evaluation],
    output: OutputKind,
    gate: GateSettings,
    fields: Collection[str],
) -> tuple[list[Slice], list[Slice]]:
    """The slices before their test: the large ones, and the rare ones with that of all of them."""
    drawn: dict[tuple[SliceKind, str], dict[int, bool]] = defaultdict(dict)  # agreement by group
    numbered = zip(group_numbers(served), served, strict=True)
    for group, row in sorted(numbered, key=lambda one: _draw(one[1])):
        drawn["fingerprint", row.fingerprint].setdefault(group, row.agrees)
        for label in labels_in(row, output, fields) if output != "text" else ():
            drawn[KINDS[output], label].setdefault(group, gives(row, label, output))
    large, rare = [], []
    together: dict[int, bool] = {}
    kind: SliceKind = KINDS.get(output, "label")
    for (of_kind, name), groups in sorted(drawn.items()):
        if len(groups) >= gate.min_slice_rows:
            large.append(_slice(of_kind, name, groups, gate))
        elif of_kind != "fingerprint":
            rare.append(_slice(of_kind, name, groups, gate))
            for group, agrees in sorted(groups.items()):
                together.setdefault(group, agrees)
    if len(rare) == 1:  # it is all of them
        rare = []
    return large, [*rare, _slice(kind, RARE, together, gate)] if together else []


def _slice(kind: SliceKind, name: str, groups: dict[int, bool], gate: GateSettings) -> Slice:
    from scipy.stats import binom  # noqa: PLC0415 - slow to import

    n, agreed = len(groups), sum(groups.values())
    p_value = float(binom.cdf(agreed, n, floor_of(gate)))
    return Slice(kind=kind, name=name, n=n, agreed=agreed, p_value=p_value, below=False)


def holm(slices: Iterable[Slice], alpha: float) -> list[Slice]:
    """The slices in the order of their p-values; `below` by Holm's procedure at this level."""
    ordered = sorted(slices, key=attrgetter("p_value", "kind", "name"))
    results: list[Slice] = []
    below = True
    for place, part in enumerate(ordered):
        below = below and part.p_value <= alpha / (len(ordered) - place)
        results.append(replace(part, below=below))
    return results


def tarone(slices: Sequence[Slice], alpha: float, floor: float) -> list[Slice]:
    """Those that could be proven to lie below `floor`, and `below` by the steps of Tarone's test.

    A slice of n groups has a p-value of at least (1 - floor)^n. The level of each test is alpha / k
    for the smallest k that at most k slices could reach; what is below leaves the rest a larger
    level.
    """
    remaining, found = list(slices), list[Slice]()
    while True:
        k = next(
            k
            for k in range(1, len(remaining) + 2)
            if sum(_could_reach(part, alpha / k, floor) for part in remaining) <= k
        )
        below = [part for part in remaining if part.p_value <= alpha / k]
        if not below:
            could = [part for part in remaining if _could_reach(part, alpha / k, floor)]
            return [*found, *could]
        found += [replace(part, below=True) for part in below]
        remaining = [part for part in remaining if part not in below]


def _could_reach(part: Slice, level: float, floor: float) -> bool:
    return (1 - floor) ** part.n <= level * (1 + 1e-9)


def _draw(evaluation: Evaluation) -> float:
    return uniform(evaluation.input_hash.encode(), purpose=b"slice")
