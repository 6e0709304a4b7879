"""The splits of a task's groups: the newest ones judge, and the older ones are learned from.

A certificate speaks of what comes next, so it is judged on the groups that began last. All that
was known of the others when those began is there to learn from, as it will be in service.

A group begins with its oldest input and grows without moving. What a run has learned from never
judges, and what a certificate in force was judged on is not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from store.hashing import uniform
from store.records import Split
from store.settings.tasks import SplitSettings

MAX_AHEAD_S = 300.0  # of the clock: what began later has a time that says nothing
MAX_OTHERS = 0.1  # groups as new as the held-out ones, as a share of those: beyond, it is a mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitGroup:
    """What the split looks at of one group."""

    name: str  # of its oldest input
    began: float  # when that was asked, in seconds since the epoch
    can_judge: bool  # whether it has a row that may be a calibration or a held-out row
    learned: bool = False  # by an earlier run, from any of its rows
    judged: bool = False  # the certificate in force was judged on any of its rows


@dataclass(frozen=True, slots=True)
class Splits:
    """The split of each group, and what the held-out ones are."""

    by_name: dict[str, Split] = field(default_factory=dict)
    since: float | None = None  # when the oldest held-out group began; None: not known
    # whether others are as new: the times do not tell, or what is newest was learned from before
    mixed: bool = False


def split_groups(
    groups: Sequence[SplitGroup], shares: SplitSettings, *, now: float | None = None
) -> Splits:
    """The split of each of these groups, which have different names.

    The shares of the settings are of the groups that can judge; all others are trained on. Held out
    are those that began last, of which no run has learned; of equally old ones a hash of their
    names decides, so that without times it decides alone. The others are trained on or calibrate,
    by another hash: by the same one, nothing would be left to calibrate on without times.

    `now`: the time by the clock. What began after it did not: it counts as older than all others.
    """
    latest = inf if now is None else now + MAX_AHEAD_S
    began = {g.name: g.began if g.began <= latest else -inf for g in groups}
    judging = [g for g in groups if g.can_judge]
    unseen = [g.name for g in judging if not g.learned]
    unseen.sort(key=lambda name: (began[name], _position(name, b"split")), reverse=True)
    heldout = set(unseen[: round(shares.heldout * len(judging))])
    train = shares.train / (shares.train + shares.calibration)
    by_name: dict[str, Split] = {}
    for group in groups:
        if group.name in heldout:
            by_name[group.name] = "heldout"
        elif not group.can_judge:
            by_name[group.name] = "train"
        elif group.judged or _position(group.name, b"calibration") >= train:
            by_name[group.name] = "calibration"
        else:
            by_name[group.name] = "train"
    if not heldout:
        return Splits(by_name)
    since = min(began[name] for name in heldout)
    others = sum(began[g.name] >= since for g in judging) - len(heldout)
    return Splits(by_name, since if since > -inf else None, others > MAX_OTHERS * len(heldout))


def _position(name: str, purpose: bytes) -> float:
    return uniform(name.encode(), purpose=purpose)
