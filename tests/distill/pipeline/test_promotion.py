"""The route of a judged run: its coverage, and that it is stored unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distill.dataset.rows import Row, Selection
from distill.evaluate.scoring import Scorer
from distill.pipeline.promotion import first_promotion, route_of, save_route, saved_route
from distill.pipeline.terms import terms_of_service
from distill.run.run import Run
from store.errors import RunError
from store.records import (
    ConfidenceModel,
    Forms,
    PromptTemplate,
    TermsOfService,
)
from store.settings.tasks import StudentSettings, TaskSettings
from tests.helpers.samples import a_certificate

TEMPLATE = PromptTemplate(
    template_id="a" * 16, shape="b" * 16, literals=["Today is ", "."], holes=[20], distinct=7
)
CONFIDENCE = ConfidenceModel(intercept=1.5, weights={"lowest": 0.25, "margin": 2.0})
SCORER = Scorer("json", 0.9, "json", "because")


def a_row(text: str, target: str) -> Row:
    return Row(
        trace_id="t",
        input_hash=text,
        split="heldout",
        fingerprint="f" * 16,
        model="gpt-4o",
        messages=[{"role": "user", "content": text}],
        target=target,
        params={},
    )


ROWS = [a_row("short", "{}"), a_row("the longest input", '{"a": 1}')]
SELECTION = Selection(ROWS, templates=[TEMPLATE])
TERMS = TermsOfService(
    output="json",
    forms=Forms(keys=[[], ["a"]]),
    max_tokens=40,
    cutoff=0.7,
    confidence=CONFIDENCE,
)


def a_run(folder: Path) -> Run:
    settings = TaskSettings(student=StudentSettings(request_timeout_s=3))
    return Run("run-1", "triage", settings, 1.0, folder)


def test_a_route_covers_what_was_certified_and_no_more(tmp_path: Path) -> None:
    certificate = a_certificate(cutoff=0.7, fingerprints=["f" * 16])
    route = route_of(a_run(tmp_path), SELECTION, SCORER, certificate, TERMS)
    assert (route.target, route.step, route.share, route.forced) == (
        "student",
        "shadow",
        0.0,
        False,
    )
    assert (route.student_id, route.fingerprints) == ("run-1", ["f" * 16])
    assert (route.terms, route.templates) == (TERMS, [TEMPLATE])
    assert (route.scorer, route.agree_at) == ("json", 0.9)
    assert route.max_input_chars == len("the longest input")
    promotion = first_promotion(certificate, route)
    assert (promotion.state, promotion.actor, promotion.forced) == ("shadow", "gate", False)
    assert (promotion.run_id, promotion.certificate) == (certificate.run_id, certificate)


def test_the_token_limit_rests_on_all_rows(tmp_path: Path) -> None:
    longest = "an answer that only a row of the train split has"
    rows = [replace(a_row("one", longest), split="train"), a_row("two", "{}")]
    terms = terms_of_service(a_run(tmp_path), Selection(rows), SCORER, Forms(keys=[[]]))
    assert terms == TermsOfService(
        output="json",
        forms=Forms(keys=[[]]),
        max_tokens=32 + len(longest) + len(longest) // 4,
        timeout_s=3,
    )


def test_a_route_comes_back_from_the_folder_of_its_run_unchanged(tmp_path: Path) -> None:
    route = route_of(a_run(tmp_path), SELECTION, SCORER, a_certificate(), TERMS)
    assert saved_route(tmp_path) is None
    save_route(tmp_path, route)
    assert saved_route(tmp_path) == route


def test_an_unreadable_route_file_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "route.json").write_text('{"task": 1}')
    with pytest.raises(RunError, match=r"route\.json cannot be read"):
        saved_route(tmp_path)
