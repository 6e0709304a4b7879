"""Finds texts that are almost equal to an earlier one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rapidfuzz import fuzz
from rensa import RMinHash, RMinHashLSH

SHINGLE = 4  # characters
PERMUTATIONS = 64
BANDS = 32  # of two rows: texts with a Jaccard similarity of 0.4 are found in 99.6 % of cases
SEED = 1
_NOT_WORDS = re.compile(r"[\W_]+")


class NearDuplicates:
    """An index of texts. MinHash proposes similar ones, an edit distance decides.

    `threshold`: of the similarity, 1 minus the share of characters that differ. Case, punctuation
    and white space do not count.
    """

    def __init__(self, threshold: float, texts: Iterable[str] = ()) -> None:
        self._threshold = threshold
        self._texts: list[str] = []
        self._index = RMinHashLSH(threshold, PERMUTATIONS, BANDS)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        plain = simplified(text)
        self._index.insert(len(self._texts), _minhash(plain))
        self._texts.append(plain)

    def similarity(self, text: str) -> float:
        """The similarity to the most similar text so far; 0 when it is below the threshold."""
        plain = simplified(text)
        cutoff = 100 * self._threshold
        return max(
            (
                fuzz.ratio(plain, self._texts[key], score_cutoff=cutoff) / 100
                for key in self._index.query(_minhash(plain))
            ),
            default=0.0,
        )

    def __contains__(self, text: str) -> bool:
        return self.similarity(text) >= self._threshold


def simplified(text: str) -> str:
    """The words in lower case with one space between them; the text itself if it has no words."""
    return _NOT_WORDS.sub(" ", text.casefold()).strip() or text.strip()


def _minhash(text: str) -> RMinHash:
    sketch = RMinHash(PERMUTATIONS, SEED)
    sketch.update(sorted({text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}))
    return sketch
