"""Frequent inputs: each is checked by itself, and all that is served is weighed by its requests.

An input that is a hundredth of the traffic or more (distill.dataset.frequent) is no sample of
anything: it is known. The student always answers it alike, so it is compared with the answers that
the teacher has given to it, of which every other one *chooses* and the others *judge*:

- The student serves the input if its answer agrees with the choosing ones at least as often as the
  threshold demands. It was trained on the answer that is commonest among these, so nothing here has
  seen the judging ones. Otherwise the teacher answers the input, by a list in the route.
- The judging answers join the held-out groups of the other inputs, in one bound for all that is
  served. A group is one observation, x_f of an input's m_f judging answers agree, each of which
  counts by the power

      λ_f = n / covered · heldout · (requests of f / requests of the other inputs) / m_f

  so that inputs and groups weigh as much as their requests (n of the `heldout` groups have a served
  row, and `covered` is the sum of their served shares). If a λ_f exceeds 1, all are divided by the
  largest, those of the groups too.

Let a_f be the chance that the teacher's answer agrees, p the agreement of a served group, and q the
mean of the a_f and p by these weights, which is the agreement of the requests that are served. The
stake of a bet u against "q ≤ p0" is the product of (1 - u + u x / p0)^λ, or less
(distill.gate.bounds). As λ ≤ 1, its expectation is at most the product of (1 - u + u a / p0)^λ
(Jensen), which is at most (1 - u + u q / p0)^Σλ (the inequality of the means), which is at most 1
where q ≤ p0. So it is an e-value, and it reaches 1 / alpha with a chance of at most alpha (Markov).
It is looked at once for each cutoff, in the order of the tests. A cutoff passes when this bound and
that of the groups alone pass: so does the first one that must not pass with a chance of at most
alpha, whichever of the two is wrong there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill.gate.cutoffs import serves
from distill.gate.groups import GroupCounts
from store.records import Evaluation, FrequentInputs

MAX_WEIGHT = 2.0  # groups that one judging answer may stand for: with more it is too little known


@dataclass(frozen=True, slots=True, kw_only=True)
class InputCheck:
    """The student's answer to one frequent input beside those of the teacher."""

    fingerprint: str  # of its prompt, or the id of the prompt's template
    input_hash: str
    requests: int  # recent ones, whoever answered
    evaluation: Evaluation | None = (
        None  # of the student's answer; None: the teacher's is not known
    )
    chosen: int = 0  # answers of the teacher that choose
    chosen_agreed: int = 0  # of these, how many the student's agrees with
    judged: int = 0  # answers of the teacher that judge
    judged_agreed: int = 0


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a cutoff serves, by requests."""

    agreed: float  # as the bounds take it: groups and answers by their weights
    n: float
    coverage: float  # share of the task's requests that is served
    score: float  # agreement of these
    inputs: Sequence[InputCheck]  # the frequent ones among them


class FrequentChecks:
    """The frequent inputs of a task, told apart by who is to answer them."""

    def __init__(
        self, checks: Sequence[InputCheck], *, requests: int, heldout: int, threshold: float
    ) -> None:
        """`requests`: of the task, these among them. `heldout`: groups of the other inputs."""
        self.checks = checks
        self._requests = max(requests, sum(check.requests for check in checks) + 1)
        others = self._requests - sum(check.requests for check in checks)
        self._groups = heldout / others  # for each request
        refused = {
            check.input_hash
            for check in checks
            if not self._known(check)
            or not _agrees(check)
            or check.chosen_agreed < threshold * check.chosen
        }
        self.teacher_inputs = sorted(refused)
        self._served = [check for check in checks if check.input_hash not in refused]
        self._others = others / self._requests

    def __bool__(self) -> bool:
        return bool(self.checks)

    @property
    def share(self) -> float:
        """Share of the task's requests that these inputs are."""
        return 1 - self._others

    def weighed(self, served: GroupCounts, groups: int, cutoff: float | None) -> Weighed:
        """What this cutoff serves, of these inputs and of the groups of the others.

        `served`: of the groups. `groups`: how many there are.
        """
        inputs = [c for c in self._served if c.evaluation and serves(c.evaluation, cutoff)]
        whole = served.groups / served.covered if served.covered else 1.0
        weights = [whole * self._groups * check.requests / check.judged for check in inputs]
        scale = 1 / max([1.0, *weights])
        pairs = list(zip(inputs, weights, strict=True))
        agreed = served.agreed + sum(w * check.judged_agreed for check, w in pairs)
        n = served.groups + sum(w * check.judged for check, w in pairs)
        shares = [check.requests / self._requests for check in inputs]
        of_groups = self._others * served.covered / max(groups, 1)
        coverage = of_groups + sum(shares)
        right = of_groups * served.agreed / max(served.groups, 1) + sum(
            share * check.judged_agreed / check.judged
            for share, check in zip(shares, inputs, strict=True)
        )
        return Weighed(
            min(agreed, n) * scale,
            n * scale,
            coverage,
            right / coverage if coverage else 0.0,
            inputs,
        )

    def summary(self, weighed: Weighed, lower_bound: float) -> FrequentInputs:
        """The numbers that a certificate has of these inputs."""
        requests = sum(check.requests for check in weighed.inputs)
        right = sum(c.requests * c.judged_agreed / c.judged for c in weighed.inputs)
        return FrequentInputs(
            inputs=len(self.checks),
            share=self.share,
            served=len(weighed.inputs),
            served_share=requests / self._requests,
            agreed=right / requests if requests else 0.0,
            lower_bound=lower_bound,
        )

    def _known(self, check: InputCheck) -> bool:
        """Whether enough of the teacher's answers are known to weigh it."""
        weight = self._groups * check.requests
        return check.chosen > 0 and check.judged > 0 and weight <= MAX_WEIGHT * check.judged


def _agrees(check: InputCheck) -> bool:
    return check.evaluation is not None and check.evaluation.agrees
