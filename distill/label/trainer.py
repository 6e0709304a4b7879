"""The training subprocess of the label kind.

    python -m store.process.leash distill.label.trainer FOLDER

FOLDER holds config.json and data/train.jsonl, data/valid.jsonl (OpenAI chat lines); the student is
written into FOLDER/adapter. The last line on standard output is its report as JSON. Error messages
contain no row's contents.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from distill.label.closed import ClosedSet
from distill.label.files import save
from distill.label.fit import Sample, fit
from distill.label.model import LabelModel
from store.jsontext import JsonObject
from store.process.memory import peak_mb

ADAPTER = "adapter"


def main(arguments: list[str]) -> None:
    """Trains on the rows in the folder."""
    if len(arguments) != 1:
        sys.exit("usage: python -m distill.label.trainer FOLDER")
    began = time.perf_counter()
    folder = Path(arguments[0])
    kind = json.loads((folder / "config.json").read_bytes())["answers"]
    rows = {name: read_samples(folder / "data" / f"{name}.jsonl") for name in ("train", "valid")}
    try:
        closed = ClosedSet.of(kind, [row.target for row in rows["train"]])
        model = fit(closed, rows["train"], rows["valid"])
    except ValueError as error:
        sys.exit(f"no student: {error}")
    save(folder / ADAPTER, model)
    report = {
        **numbers_of(model, rows["valid"]),
        "train_rows": len(rows["train"]),
        "seconds": round(time.perf_counter() - began, 3),
        "peak_mb": round(peak_mb()),
    }
    print(json.dumps(report))


def read_samples(file: Path) -> list[Sample]:
    """The rows of a file of chat lines."""
    samples = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            *messages, answer = json.loads(line)["messages"]
            samples.append(Sample(messages, answer["content"]))
    return samples


def numbers_of(model: LabelModel, rows: Sequence[Sample]) -> JsonObject:
    """What the history keeps of a student. `rows`: of the calibration split."""
    places = [model.closed.places(row.target) for row in rows]
    answers = [model.answer(row.messages) for row in rows]
    agreed = sum(
        at == [choice.place for choice in answer.choices]
        for at, answer in zip(places, answers, strict=True)
    )
    return {
        "fields": len(model.closed.fields),
        "choices": sum(map(len, model.closed.choices)),
        "ngrams": len(model.vocabulary.hashes),
        "valid_rows": len(rows),
        "valid_agreement": round(agreed / len(rows), 4) if rows else 0.0,
        "unfamiliar": sum(not answer.familiar for answer in answers),
        "temperatures": [round(t, 3) for t in model.temperatures],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
