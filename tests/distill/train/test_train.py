"""Real training runs: the result, resuming, and the errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from distill.train.train import TrainItem, TrainReport, train
from store.errors import TrainingError
from store.records import Example
from store.settings.tasks import TrainSettings
from tests.helpers.paths import ROOT
from tests.helpers.student_samples import BASE, SETTINGS, items

Steps = list[tuple[str, float, float, str]]


def test_an_item_is_an_openai_line_as_the_student_sees_it() -> None:
    example = Example(
        example_id="e",
        task="t",
        run_id="r",
        origin="trace",
        split="train",
        status="kept",
        reason="real",
        input_messages='[{"role": "developer", "content": [{"type": "text", "text": "hi"}]}]',
        target="ho",
        input_hash="h",
    )
    assert json.loads(TrainItem.from_example(example).line()) == {
        "messages": [
            {"role": "system", "content": "hi"},
            {"role": "assistant", "content": "ho"},
        ]
    }


async def test_training_without_rows_is_an_error(tmp_path: Path) -> None:
    for rows in ({"train": [], "valid": items(1, 1)}, {"train": items(1, 1), "valid": []}):
        with pytest.raises(TrainingError, match="needs rows"):
            await train(tmp_path / "run", **rows, settings=SETTINGS, progress=lambda *_: None)


# ---- real trainings ----------------------------------------------------------------------------


async def run(
    folder: Path, *, steps: Steps | None = None, settings: TrainSettings = SETTINGS, **rows: Any
) -> TrainReport:
    rows = {"train": items(80, seed=1), "valid": items(20, seed=2), **rows}
    return await train(
        folder,
        **rows,
        settings=settings,
        progress=lambda *step: steps.append(step) if steps is not None else None,
    )


def changed(**changes: Any) -> TrainSettings:
    return SETTINGS.model_copy(update=changes)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
        await asyncio.sleep(0.05)


def trainers(parent: int | None = None) -> list[psutil.Process]:
    """The training processes below a process; by default below this one."""
    result = []
    for child in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "distill.train.trainer" in child.cmdline():
                result.append(child)
    return result


@pytest.mark.slow
async def test_a_training_learns_reports_and_resumes(tmp_path: Path) -> None:
    steps: Steps = []
    settings = changed(iterations=48, validations=3)
    report = await run(tmp_path / "one", steps=steps, settings=settings)
    assert report.valid_agreement >= 0.9
    assert report.iterations == 48
    assert [at for at, _ in report.val_losses] == [16, 32, 48]
    assert [at for at, _ in report.train_losses] == list(range(8, 49, 8))
    assert report.train_losses[0][1] > report.train_losses[-1][1]
    assert report.best_val_loss == min(loss for _, loss in report.val_losses)
    assert (report.train_rows, report.valid_rows) == (80, 20)
    assert (report.left_out, report.valid_left_out) == (0, 0)
    assert report.tokens_per_second > 0
    assert json.loads(json.dumps(report.numbers()))["iterations"] == 48

    assert {name for name, *_ in steps} == {"train"}
    done = [at for _, at, _, _ in steps]
    assert done == sorted(done)
    assert (done[-1], {total for _, _, total, _ in steps}) == (48, {48})

    served = json.loads((report.adapter / "adapter_config.json").read_text())
    assert (served["fine_tune_type"], served["num_layers"]) == ("lora", -1)
    assert served["lora_parameters"]["rank"] == SETTINGS.rank
    assert sorted(p.name for p in report.adapter.iterdir()) == [
        "adapter_config.json",
        "adapters.safetensors",
    ]

    moved = (tmp_path / "one").rename(tmp_path / "two")  # wherever it lies
    weights = moved / "adapter" / "adapters.safetensors"
    before = weights.stat().st_mtime_ns
    assert await run(moved, settings=settings) == replace(report, adapter=moved / "adapter")
    assert weights.stat().st_mtime_ns == before
    # other rows or other settings are another training, in the same folder too
    again = await run(moved, settings=changed(iterations=2), train=items(9, seed=3))
    assert (again.iterations, again.train_rows) == (2, 9)


@pytest.mark.slow
async def test_the_best_checkpoint_is_kept_not_the_last(tmp_path: Path) -> None:
    """The validation rows contradict the training rows, so the loss rises after a few steps."""
    wrong = [TrainItem(i.messages, i.target.replace("thing", "what")) for i in items(20, seed=2)]
    settings = changed(batch_size=2, iterations=32, validations=8)
    report = await run(tmp_path, valid=wrong, settings=settings)
    losses = dict(report.val_losses)
    assert report.best_iteration == min(losses, key=losses.__getitem__) < 32
    assert report.best_val_loss == losses[report.best_iteration] < losses[32]
    assert loss_of(report.adapter, wrong) == pytest.approx(report.best_val_loss, rel=1e-3)


def loss_of(adapter: Path, rows: list[TrainItem]) -> float:
    """The loss of an adapter as mlx_lm itself loads it."""
    from mlx_lm import load  # noqa: PLC0415 - only for real trainings

    from distill.train.loss import check, choose_logits  # noqa: PLC0415
    from distill.train.rendering import Renderer  # noqa: PLC0415

    student, tokenizer = load(BASE, adapter_path=str(adapter))
    renderer = Renderer(tokenizer)
    rendered = [renderer.row(i.messages, i.target) for i in rows]
    return check(student, rendered, logits_at=choose_logits(student), batch_size=8).loss


@pytest.mark.slow
async def test_mlx_lms_own_command_takes_the_same_config(tmp_path: Path) -> None:
    await run(tmp_path, settings=changed(iterations=3, validations=1))
    made = yaml.safe_load((tmp_path / "config.yaml").read_text())
    made["adapter_path"] = str(tmp_path / "by-mlx-lm")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(made))
    command = [sys.executable, "-m", "distill.train.mlx_launch", "mlx_lm", "lora", "-c"]
    await asyncio.to_thread(
        subprocess.run, [*command, str(tmp_path / "config.yaml")], check=True, capture_output=True
    )
    ours, theirs = (tmp_path / name / "adapters.safetensors" for name in ("adapter", "by-mlx-lm"))
    assert weights(ours).keys() == weights(theirs).keys()
    assert {n: v.shape for n, v in weights(ours).items()} == {
        n: v.shape for n, v in weights(theirs).items()
    }


def weights(file: Path) -> dict[str, Any]:
    import mlx.core as mx  # noqa: PLC0415 - only for real trainings

    return dict(mx.load(str(file)))


@pytest.mark.slow
async def test_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    long = [TrainItem(i.messages, i.target + " very" * 300) for i in items(5, seed=4)]
    report = await run(
        tmp_path,
        train=[*items(10, seed=5), *long],
        valid=[*items(1, seed=6), *long[:2]],
        settings=changed(iterations=2, mask_prompt=False),
    )
    assert (report.train_rows, report.left_out) == (10, 5)
    assert (report.valid_rows, report.valid_left_out) == (1, 2)


SECRET = "zanzibar"
WHISPERED = [TrainItem([{"role": "user", "content": SECRET}], SECRET)] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"keys": ["self_attn.nothing"]}, WHISPERED, r"exit code 1 .*train\.keys"),
        ({"layers": 99}, WHISPERED, r"train\.layers is 99.*only"),
        ({"scale": 1e38, "learning_rate": 1e3}, WHISPERED, "not a number.*lower train.learning"),
        ({"max_seq_length": 16}, items(4, seed=1), "none of 4 rows fits into 16 tokens"),
        ({"base": "/nowhere/at/all"}, WHISPERED, "exit code 1 after 0 of"),
        ({"timeout_s": 0.5}, WHISPERED, r"longer than train\.timeout_s \(0\.5 s\)"),
    ],
)
async def test_a_training_error_has_a_reason_and_quotes_no_row(
    tmp_path: Path, changes: dict[str, Any], rows: list[TrainItem], message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as failure:
        await run(tmp_path, train=rows, valid=rows, settings=changed(iterations=5, **changes))
    assert SECRET not in str(failure.value)
    assert SECRET not in (tmp_path / "train.log").read_text()
    assert not (tmp_path / "report.json").exists()
    assert trainers() == []


@pytest.mark.slow
async def test_a_killed_training_names_the_signal_and_starts_over(tmp_path: Path) -> None:
    steps: Steps = []
    training = asyncio.create_task(
        run(tmp_path, steps=steps, settings=changed(iterations=5000, epochs=9))
    )
    await until(lambda: any("tokens/s" in note for *_, note in steps))
    trainers()[0].send_signal(signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"by SIGKILL \(out of memory.* of 5000 iterations"):
        await training
    assert (await run(tmp_path, settings=changed(iterations=2))).iterations == 2


@pytest.mark.slow
async def test_a_cancelled_training_leaves_no_process(tmp_path: Path) -> None:
    training = asyncio.create_task(run(tmp_path, settings=changed(iterations=5000)))
    await until(lambda: bool(trainers()))
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert trainers() == []


@pytest.mark.slow
async def test_a_training_dies_with_its_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.distill.train.test_train", str(tmp_path), cwd=ROOT
    )
    await until(lambda: bool(trainers(parent.pid)))
    orphan = trainers(parent.pid)[0]
    parent.kill()
    await parent.wait()
    await until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


if __name__ == "__main__":  # the parent that is killed
    asyncio.run(run(Path(sys.argv[1]), settings=changed(iterations=5000)))
