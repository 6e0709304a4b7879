"""Which split a real input belongs to: decided by its hash alone, before anything is made of it."""

from __future__ import annotations

from hashlib import blake2b

from store.records import Split
from store.settings.tasks import SplitSettings


def split_of(input_hash: str, shares: SplitSettings) -> Split:
    """The split of this input.

    A pure function of the normalised input's hash: whatever rows come later, and however often an
    input comes, it stays where it is. Over many inputs the splits have the shares of the settings.
    """
    position = uniform(input_hash)
    if position < shares.train:
        return "train"
    if position < shares.train + shares.calibration:
        return "calibration"
    return "heldout"


def uniform(input_hash: str) -> float:
    """A number in [0, 1) that depends on the hash only, and is uniform over hashes."""
    digest = blake2b(input_hash.encode(), digest_size=8, person=b"split").digest()
    # 53 bits, what a float holds: all 64 could round up to 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53
