"""Requests from closed sets, for label students: which skill a voice command is for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from distill.dataset.rows import Row
from distill.label.closed import ClosedSet
from distill.label.fit import Sample, fit
from distill.label.model import LabelModel
from store.records import Split

SYSTEM = "Which skill is this for? Answer with its name."
PHRASES = {
    "Music": ("play {} by the band", "put on some {} music", "add {} to my playlist"),
    "Weather": ("will it rain in {}", "what is the forecast for {}", "how cold is it in {}"),
    "Book": ("rate the novel {}", "give {} four stars", "this essay {} gets a zero"),
}
NAMES = ("jazz", "oslo", "saturn", "maria", "delta", "seven", "amber", "winter", "lima", "river")


def commands(count: int, seed: int) -> list[tuple[str, str]]:
    """(voice command, skill), the same for the same seed."""
    random_ = random.Random(seed)
    found = []
    for _ in range(count):
        skill = random_.choice(sorted(PHRASES))
        names = f"{random_.choice(NAMES)} {random_.choice(NAMES)} {random_.randrange(100)}"
        found.append((random_.choice(PHRASES[skill]).format(names), skill))
    return found


def asked(text: str, system: str = SYSTEM) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def label_samples(count: int, seed: int) -> list[Sample]:
    return [Sample(asked(text), skill) for text, skill in commands(count, seed)]


def json_samples(count: int, seed: int) -> list[Sample]:
    """Answers with two fields: the skill, and whether a number below fifty is named."""
    return [
        Sample(asked(text), json.dumps({"skill": skill, "small": int(text.split()[-1]) < 50}))
        if text.split()[-1].isdigit()
        else Sample(asked(text), json.dumps({"skill": skill, "small": None}))
        for text, skill in commands(count, seed)
    ]


def fitted(train: Sequence[Sample], calibration: Sequence[Sample] = ()) -> LabelModel:
    kind = "json" if train[0].target.startswith("{") else "label"
    return fit(ClosedSet.of(kind, [s.target for s in train]), train, calibration)


def label_rows(count: int, seed: int, split: Split = "heldout") -> list[Row]:
    """The same as rows of a run."""
    return [
        Row(
            trace_id=f"trace-{seed}-{place}",
            input_hash=f"{seed:016x}{place:016x}",
            split=split,
            fingerprint="f" * 16,
            model="teacher",
            messages=list(sample.messages),
            params={},
            target=sample.target,
        )
        for place, sample in enumerate(label_samples(count, seed))
    ]
