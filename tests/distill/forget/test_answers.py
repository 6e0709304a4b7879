"""Labels of any kind that only forgotten answers had leave certificates, and all others stay."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from distill.forget.answers import FORGOTTEN_NAME, retracted_answers
from store.records import Recall, Slice, SliceKind
from tests.helpers.samples import a_certificate


@pytest.mark.parametrize(
    ("kind", "gone", "stays", "name", "left"),
    [
        ("label", " only his ", "ours", "only his", "ours"),
        ("field", '{"a": "his", "b": 1}', '{"a": "ours", "b": 1}', "a=his", "b=1"),
        (
            "call",
            '{"name": "his", "arguments": {}}',
            '{"name": "ours", "arguments": {}}',
            "his",
            "ours",
        ),
    ],
)
def test_labels_of_every_kind_are_forgotten(
    kind: SliceKind, gone: str, stays: str, name: str, left: str
) -> None:
    names = [name, left]
    certificate = a_certificate(
        slices=[Slice(kind=kind, name=x, n=9, agreed=9, p_value=1.0, below=False) for x in names],
        recalls=[
            *(Recall(name=x, n=9, agreed=9, low=0.5) for x in names),
            Recall(name=name, n=9, agreed=9, low=0.5, protected=True),
        ],
        unproven_labels=names,
    )
    retracted = retracted_answers([gone, stays], [stays])
    cleared = retracted.removed_from_certificate(certificate)
    assert [s.name for s in cleared.slices] == [FORGOTTEN_NAME, left]
    assert [r.name for r in cleared.recalls] == [FORGOTTEN_NAME, left, name]
    detail = retracted.removed_from_detail({"certificate": asdict(certificate)})
    assert detail["certificate"] == asdict(cleared)
    old = {"passed": True, "slices": []}  # of before recalls were kept
    assert retracted.removed_from_detail({"certificate": old})["certificate"]["passed"]
