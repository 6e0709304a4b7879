"""Spoils a student on disk, as a broken disk or a careless hand would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WEIGHTS = "adapters.safetensors"


def shuffle_weights(adapter: Path, seed: int = 0) -> int:
    """Shuffles the numbers of an adapter among each other. Returns how many there are.

    The file stays a valid one, of the same size and shapes: whoever serves it next notices nothing
    while loading it. The format: 8 bytes with the header's length (little endian), a JSON header,
    then the tensors; https://github.com/huggingface/safetensors#format
    """
    file = adapter / WEIGHTS
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    kinds = {t["dtype"] for n, t in json.loads(raw[8:start]).items() if n != "__metadata__"}
    if kinds != {"F32"}:
        raise ValueError(f"{WEIGHTS} holds {', '.join(sorted(kinds))}, not only F32")
    numbers = np.frombuffer(raw[start:], dtype="<f4").copy()
    np.random.default_rng(seed).shuffle(numbers)
    file.write_bytes(raw[:start] + numbers.tobytes())
    return len(numbers)
