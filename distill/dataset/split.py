"""The split of a real input: decided by its hash alone, before anything is made from it."""

from __future__ import annotations

from store.hashing import uniform
from store.records import Split
from store.settings.tasks import SplitSettings


def split_of(input_hash: str, shares: SplitSettings) -> Split:
    """The split of an input.

    A pure function of the normalised input's hash: however often the input comes, and whatever
    comes later, it stays in its split. Over many inputs the splits have the shares of the settings.
    """
    position = uniform(input_hash.encode(), purpose=b"split")
    if position < shares.train:
        return "train"
    if position < shares.train + shares.calibration:
        return "calibration"
    return "heldout"
