"""The backtest: its setting-up and its arithmetic here, the whole of it on the real product."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.main import app
from demo.backtest.backtest import backtest
from demo.backtest.logs import Layout, LogRow, lay_out
from demo.backtest.plan import (
    Backtest,
    product_config,
    read_layout,
    run_settings,
    with_thresholds,
    working_folder,
)
from demo.backtest.replay import ReplayTeacher, Tally, tokens_of
from demo.backtest.report import agreement, build_report, percentile, savings, test_section, times
from demo.backtest.thresholds import at_thresholds
from demo.backtest.view import bars, show_report, silence
from demo.base.student_settings import BASE, tiny_student
from demo.drive.driver import SentRequest
from demo.tasks.tasks import TASKS
from store.errors import BacktestError, ConfigError
from store.settings.config import parse_config
from store.settings.tasks import AmplifySettings, GateSettings, TaskSettings
from store.settings.teachers import Price, prices

test_section.__test__ = False  # type: ignore[attr-defined]  # a part of the report, not a test


def log_row(text: str, answer: str = "yes") -> LogRow:
    return LogRow([{"role": "user", "content": text}], answer)


def written(folder: Path, count: int, name: str = "log.jsonl") -> Path:
    file = folder / name
    lines = ({"messages": log_row(f"{name} {i}").messages, "answer": "a"} for i in range(count))
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return file


def exchange(
    answer: str | None = "yes",
    route: str | None = "student",
    latency_ms: float = 1.0,
    reason: str | None = "certified",
) -> SentRequest:
    error = None if answer is not None else "APITimeoutError"
    return SentRequest(answer, route, reason, "trace", "t", latency_ms, error)


def same(recorded: str, answer: str) -> bool:
    return recorded == answer


# ---- setting up --------------------------------------------------------------------------------


def test_one_run_starts_when_all_traffic_is_in(tmp_path: Path) -> None:
    layout = read_layout(Backtest(file=written(tmp_path, 50), limit=30))
    settings = run_settings(TaskSettings(paused=True, cooldown_s=0), layout)
    assert settings.min_traces == 30
    assert settings.cooldown_s > 24 * 3600
    assert not settings.paused
    assert settings.amplify.target == len(layout.pool) == 10
    small = TaskSettings.model_validate({"amplify": {"target": 4}})
    assert run_settings(small, layout).amplify.target == 4


def test_the_generated_config_is_one_that_a_user_could_write() -> None:
    layout = lay_out([log_row(str(i)) for i in range(50)])
    settings = run_settings(tiny_student(), layout)
    raw = product_config("http://127.0.0.1:1/v1", settings, Price(1e-6, 5e-6))
    config = parse_config(json.loads(json.dumps(raw)))
    assert config.task("any") == settings
    assert prices(config) == {"replay": Price(1e-6, 5e-6)}


def test_the_tiny_base_is_installed() -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        file.name for file in BASE.iterdir()
    }


def test_too_few_rows_and_impossible_tags_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BacktestError, match="6 rows for traffic; a run needs 10"):
        read_layout(Backtest(file=written(tmp_path, 10)))
    with pytest.raises(BacktestError, match="tag"):
        read_layout(Backtest(file=written(tmp_path, 50), task="../etc"))
    with pytest.raises(BacktestError, match=r"test\.jsonl: no rows"):
        read_layout(Backtest(file=written(tmp_path, 50), test=written(tmp_path, 0, "test.jsonl")))


def test_thresholds_may_be_given() -> None:
    assert with_thresholds(tiny_student(), []) == tiny_student()
    assert with_thresholds(tiny_student(), [0.9, 0.8, 0.98]).gate.threshold == 0.8
    with pytest.raises(ConfigError, match=r"1\.5 is not between 0 and 1"):
        with_thresholds(tiny_student(), [0.9, 1.5])


def test_a_kept_folder_stays_and_must_be_empty(tmp_path: Path) -> None:
    with working_folder(None) as folder:
        (folder / "file").touch()
    assert not folder.exists()
    with working_folder(tmp_path / "new") as folder:
        (folder / "file").touch()
    assert (folder / "file").exists()
    for taken in (folder, folder / "file"):
        with pytest.raises(BacktestError, match="not an empty folder"), working_folder(taken):
            pass


# ---- the arithmetic ----------------------------------------------------------------------------


def test_the_interval_is_clopper_pearsons() -> None:
    # Clopper and Pearson (1934) by their definition: each tail has 2.5 %
    found = agreement([True] * 9 + [False])
    assert found == {"n": 10, "agreed": 9, "share": 0.9, "low": 0.555, "high": 0.9975}
    all_agree = agreement([True] * 100)
    assert all_agree["low"] == round(0.025 ** (1 / 100), 4)
    assert all_agree["high"] == 1.0
    assert agreement([]) == {"n": 0, "agreed": 0, "share": None, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.5, 5.0), ([3, 1, 2], 0.5, 2), ([1, 2], 0.5, 1), (range(1, 101), 0.95, 95)],
)
def test_percentiles_are_values_that_occurred(values: Any, share: float, expected: float) -> None:
    assert percentile(list(values), share) == expected


def test_the_report_counts_the_test_rows_by_route() -> None:
    rows = [log_row(str(i)) for i in range(6)]
    found = test_section(
        rows,
        [
            exchange(latency_ms=10),
            exchange(latency_ms=30),
            exchange("no", latency_ms=20),
            exchange(route="fallback", reason="student_unsure", latency_ms=50),
            exchange(None, route="teacher", reason="no_student", latency_ms=7),
            exchange(None, route=None, reason=None, latency_ms=9),
        ],
        same,
        threshold=0.9,
    )
    assert found["n"] == 6
    assert found["answered_by_student"] == {"n": 3, "share": 0.5}
    assert (found["agreement_of_student"]["agreed"], found["agreement_of_student"]["n"]) == (2, 3)
    assert (found["agreement_all"]["agreed"], found["agreement_all"]["n"]) == (3, 6)
    assert (found["errors"], found["error_kinds"]) == (2, {"APITimeoutError": 2})
    assert found["by_route"] == {
        "fallback": times([50]),
        "none": times([9]),
        "student": {"n": 3, "p50_ms": 20, "p95_ms": 30},
        "teacher": times([7]),
    }
    assert found["reasons"] == {
        "certified": 3,
        "student_unsure": 1,
        "no_student": 1,
        "none": 1,
    }


@pytest.mark.parametrize(
    ("wrong", "of", "contradicted"),
    [(0, 10, False), (12, 100, False), (19, 100, True), (3, 3, True), (0, 0, False)],
)
def test_a_certificate_is_contradicted_only_by_what_chance_does_not_explain(
    wrong: int, of: int, contradicted: bool
) -> None:
    # with 12 of 100 wrong the interval ends at 0.936, with 19 of 100 at 0.882
    exchanges = [exchange("no" if i < wrong else "yes") for i in range(of)]
    others = [exchange("no", route="teacher")]
    rows = [log_row(str(i)) for i in range(of + 1)]
    found = test_section(rows, [*exchanges, *others], same, threshold=0.9)
    assert found["certificate_contradicted"] is contradicted


def ledger(**tallies: Tally) -> dict[str, Tally]:
    return {**ReplayTeacher(Layout([], [], [], 0, 0, 0, 0)).ledger, **tallies}


def test_savings_are_counted_on_the_test_rows() -> None:
    test = [log_row("x" * 32, "y" * 80)] * 10
    assert tokens_of(test[0].messages, test[0].answer) == (12, 20)
    # 12 tokens in at 1 $ and 20 out at 5 $ a million: 112 millionths a row
    found = savings(
        test,
        ledger(
            test=Tally(2, 24, 40),
            policy=Tally(1, 100, 0),
            inputs=Tally(1, 0, 100),
            answers=Tally(3, 36, 60),
            traffic=Tally(50, 600, 1000),
        ),
        Price(1e-6, 5e-6),
    )
    assert found["teacher_usd_without"] == 0.00112
    assert found["teacher_usd_with"] == 0.000224
    assert found["distilling_usd"] == round(936e-6, 6)
    assert found["saved_share"] == 0.8
    assert found["pays_off_after"] == 11  # 936 / 89.6, rounded up
    assert found["price"] == {"input_usd_per_million": 1.0, "output_usd_per_million": 5.0}


def test_without_a_student_nothing_is_saved() -> None:
    test = [log_row("x" * 32, "y" * 80)] * 10
    found = savings(test, ledger(test=Tally(10, 120, 200)), Price(1e-6, 5e-6))
    assert found["saved_share"] == 0
    assert found["pays_off_after"] is None
    free = savings(test, ledger(test=Tally(10, 120, 200)), Price(0, 0))
    assert free["saved_share"] == 0


def rejected_status() -> dict[str, Any]:
    return {
        "last_run": {"state": "rejected", "reason": "12 held-out rows", "detail": {}},
        "certificate": None,
        "examples": {"trace": {"kept": 40, "rejected": 0, "reasons": {}}},
    }


def test_a_rejected_task_has_a_report_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout = lay_out([log_row(str(i)) for i in range(50)])
    report = build_report(
        task="t",
        layout=layout,
        settings=run_settings(tiny_student(), layout),
        price=Price(2e-6, 8e-6),
        ledger=ledger(test=Tally(10, 50, 10)),
        status=rejected_status(),
        exchanges=[exchange(route="teacher", reason="no_student") for _ in layout.test],
        agrees=same,
        seconds={"traffic": 1.23456},
    ) | {"thresholds": at_thresholds([0.95], [], GateSettings(), "text", [])}
    assert (report["result"], report["certificate"]) == ("rejected", None)
    assert report["rows"]["test"] == report["test"]["n"] == 10
    assert report["test"]["answered_by_student"] == {"n": 0, "share": 0.0}
    assert report["test"]["certificate_contradicted"] is False
    assert report["seconds"] == {"traffic": 1.235}
    assert json.loads(json.dumps(report)) == report
    show_report(report, Console(width=120))
    shown = capsys.readouterr().out
    assert "rejected: 12 held-out rows" in shown
    assert "no certificate: the student was not evaluated" in shown
    assert "10: the student answered 0 (0.0%), 0 errors" in shown


def test_the_progress_bars_follow_the_stages(capsys: pytest.CaptureFixture[str]) -> None:
    with bars(Console(width=100, force_terminal=False)) as progress:
        progress("traffic", 0, 10, "")
        progress("traffic", 10, 10, "teacher")
        progress("train", 3.7, 8, "loss 1.2")
    shown = capsys.readouterr().out
    assert "10/10" in shown
    assert "3/8" in shown
    assert "loss 1.2" in shown


# ---- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 1, "log.jsonl line 51: not valid JSON"),
        (["--test", "absent.jsonl"], 1, "absent.jsonl: cannot be read"),
        (["--config", "absent.yaml"], 2, "absent.yaml: no such file"),
        (["--threshold", "1"], 2, "not between 0 and 1"),
    ],
)
def test_the_command_reports_unusable_options(
    tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    file = written(tmp_path, 50)
    if not options:
        file.write_bytes(file.read_bytes() + b"\n{")
    found = CliRunner().invoke(app, ["backtest", str(file), "--json", *options])
    assert found.exit_code == code
    assert said in found.stderr
    assert found.stdout == ""


# ---- the whole ---------------------------------------------------------------------------------


def write_reviews(file: Path, seed: str, count: int) -> Path:
    """Reviews, all thanked for in the same words: the way is tested here, not the student."""
    task = TASKS["review-sentiment"]
    lines = (
        orjson.dumps({"messages": task.messages(text), "answer": "Thank you."})
        for text in islice(task.texts(seed), count)
    )
    file.write_bytes(b"\n".join(lines))
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threshold", "result"),
    [
        (0.999, "rejected"),
        # what some 40 held-out rows can prove
        pytest.param(0.7, "promoted", marks=pytest.mark.rare),
    ],
)
async def test_a_backtest_runs_the_real_product_on_a_log(
    tmp_path: Path, threshold: float, result: str
) -> None:
    settings = tiny_student()
    report = await backtest(
        Backtest(
            file=write_reviews(tmp_path / "log.jsonl", "log", 200),
            test=write_reviews(tmp_path / "test.jsonl", "test", 20),
            limit=160,
            settings=with_thresholds(
                settings.model_copy(
                    update={
                        "amplify": AmplifySettings(target=20, batch=10),
                        "train": settings.train.model_copy(update={"compare": False, "epochs": 2}),
                    }
                ),
                [threshold],
            ),
            keep=tmp_path / "kept",
        ),
        silence,
    )
    assert report["result"] == result
    assert report["rows"]["traffic"] == 160
    assert report["test"]["n"] == 20
    assert report["test"]["errors"] == 0
    by_purpose = report["teacher"]["by_purpose"]
    assert by_purpose["traffic"]["requests"] == 160
    from_teacher = 20 - report["test"]["answered_by_student"]["n"]
    assert by_purpose["test"]["requests"] == from_teacher
    assert (tmp_path / "kept" / "serve.log").exists()
    if result == "rejected":
        assert from_teacher == 20
        assert report["savings"]["saved_share"] == 0
    else:
        assert report["certificate"]["passed"]
        assert by_purpose["policy"]["requests"] == 1
        assert by_purpose["answers"]["requests"] >= 20
        assert report["examples"]["synthetic"]["kept"] == 20
        assert report["test"]["answered_by_student"]["n"] > 0
        assert report["savings"]["saved_share"] > 0
    [section] = report["thresholds"]
    assert section["passed"] == (result == "promoted")
    assert section["answered"] == report["test"]["answered_by_student"]["share"]
    assert json.loads(json.dumps(report)) == report
