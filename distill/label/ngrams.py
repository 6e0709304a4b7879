"""N-grams of a text as 32-bit hashes: words 1-2, and characters 2-4 within words.

The same as scikit-learn's TfidfVectorizer with `analyzer="word"` and `"char_wb"` yields, but for
the hashes: they make a vocabulary an array of numbers, of which no text can be read back, and are
computed by numpy for a whole text at once. Two n-grams in 60,000 share a hash.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any
from zlib import crc32

import numpy as np

Hashes = np.ndarray[Any, np.dtype[np.uint32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

CHARACTERS = (2, 3, 4)
_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: multiplying by it mixes bits
_SPACE = ord(" ")


def word_ngrams(text: str, salt: int) -> Hashes:
    """The hashes of the words of a text and of its pairs of neighbours, each as often as it stands.

    `salt`: n-grams of different salts are different n-grams.
    """
    words = [crc32(word.encode("utf-8", "replace")) for word in _WORD.findall(normal(text))]
    ones = np.array(words, dtype=np.uint64)
    pairs = ones[:-1] * _FACTOR + ones[1:] if len(ones) > 1 else ones[:0]
    return np.concatenate([_mixed(ones, salt, 1), _mixed(pairs, salt, 2)])


def character_ngrams(text: str, salt: int) -> Hashes:
    """The hashes of the n-grams of characters within the words of a text, padded with spaces."""
    padded = f" {' '.join(normal(text).split())} "
    points = np.frombuffer(padded.encode("utf-32-le", "replace"), dtype=np.uint32)
    inner = points != _SPACE
    points = points.astype(np.uint64)
    found, hashed = [], points
    within = np.ones(len(points), dtype=bool)  # of each n-gram: no space but at its ends
    for n in range(2, max(CHARACTERS) + 1):
        if len(points) < n:
            break
        hashed = hashed[:-1] * _FACTOR + points[n - 1 :]
        # the last one's end becomes the inside of the next
        within = within[:-1] if n == 2 else within[:-1] & inner[n - 2 : len(inner) - 1]
        found.append(_mixed(hashed[within], salt, 10 + n))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint32)


def counted(hashes: Hashes) -> tuple[Hashes, Floats]:
    """Each hash once, in rising order, with 1 + log of how often it stands."""
    unique, counts = np.unique(hashes, return_counts=True)
    return unique, (1 + np.log(counts)).astype(np.float32)


def normal(text: str) -> str:
    """The text after NFKC, in lower case."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def _mixed(values: Any, salt: int, kind: int) -> Hashes:
    """The upper half of the values' products, with the salt and the kind of n-gram mixed in."""
    seed = np.uint64((salt * 0x1000193 + kind * 0x27D4EB2F) & 0xFFFFFFFF)
    mixed = (values ^ (seed << np.uint64(17))) * _FACTOR
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _FACTOR
    hashes: Hashes = (mixed >> np.uint64(32)).astype(np.uint32)
    return hashes
