from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distill.label.files import FILE, digest_of, load, save
from distill.label.model import LabelModel
from distill.label.server import completion
from store.chat.student_wire import UNFAMILIAR, read_student_answer, student_body
from store.errors import StudentError
from tests.helpers.label_samples import asked, fitted, json_samples, label_samples


@pytest.fixture(scope="module")
def model() -> LabelModel:
    return fitted(label_samples(300, 1), label_samples(150, 2))


@pytest.mark.slow
def test_it_learns_which_label_an_input_has(model: LabelModel) -> None:
    samples = label_samples(100, 3)
    answers = [model.answer(sample.messages) for sample in samples]

    agreed = sum(a.text == s.target for a, s in zip(answers, samples, strict=True))
    assert agreed >= 98
    assert sum(answer.familiar for answer in answers) >= 90


@pytest.mark.slow
def test_each_field_is_learned_and_the_answer_is_json() -> None:
    model = fitted(json_samples(400, 1), json_samples(150, 2))
    samples = json_samples(100, 3)
    answers = [json.loads(model.answer(sample.messages).text) for sample in samples]

    skills = [
        answer["skill"] == json.loads(s.target)["skill"]
        for answer, s in zip(answers, samples, strict=True)
    ]
    assert sum(skills) >= 95
    assert all(list(answer) == ["skill", "small"] for answer in answers)
    raw = completion(model, student_body(asked("play jazz oslo 7"), max_tokens=50))[1]
    assert len(json.loads(raw)["choices"][0]["logprobs"]["content"]) == 2


def test_the_answer_is_read_like_that_of_any_student(model: LabelModel) -> None:
    sure = read_student_answer(
        completion(model, student_body(asked("put on some jazz music"), max_tokens=50))[1]
    )
    torn = read_student_answer(
        completion(model, student_body(asked("will it play the novel"), max_tokens=50))[1]
    )
    assert (sure.text, sure.finish_reason) == ("Music", "stop")
    assert sure.signals is not None and torn.signals is not None
    assert torn.signals.rivals > sure.signals.rivals
    assert torn.signals.lowest < sure.signals.lowest <= 0


@pytest.mark.parametrize(
    "text", ["Le chat dort sur le canapé", "zzzz qqqq", "日本語の文章です", "", "SELECT 1;"]
)
def test_an_input_like_none_that_it_has_learned_is_not_answered(
    model: LabelModel, text: str
) -> None:
    status, raw = completion(model, student_body(asked(text), max_tokens=50))

    assert status == 200
    assert read_student_answer(raw).finish_reason == UNFAMILIAR


def test_limits_and_stops_of_a_request_hold(model: LabelModel) -> None:
    messages = asked("what is the forecast for oslo lima 3")
    cut = read_student_answer(completion(model, student_body(messages, max_tokens=1))[1])
    stopped = student_body(messages, max_tokens=50, params={"stop": ["th"]})

    assert cut.finish_reason == "length"
    assert read_student_answer(completion(model, stopped)[1]).text == "Wea"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages": 3}', b'{"messages": [1]}'])
def test_what_is_no_request_is_refused(model: LabelModel, body: bytes) -> None:
    assert completion(model, body)[0] == 400


@pytest.mark.slow
def test_training_twice_gives_the_same_student(tmp_path: Path, model: LabelModel) -> None:
    save(tmp_path / "one", model)
    save(tmp_path / "two", fitted(label_samples(300, 1), label_samples(150, 2)))

    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 6
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_student_answers_the_same_from_disk(tmp_path: Path, model: LabelModel) -> None:
    save(tmp_path, model)
    loaded = load(tmp_path)

    for sample in label_samples(30, 4):
        assert loaded.answer(sample.messages) == model.answer(sample.messages)


@pytest.mark.parametrize(
    "file", ["hashes.npy", "idf.npy", "steps.npy", "bias.npy", "weights.npy", FILE]
)
def test_a_damaged_file_is_noticed(tmp_path: Path, model: LabelModel, file: str) -> None:
    save(tmp_path, model)
    content = bytearray((tmp_path / file).read_bytes())
    content[-9] ^= 0x20
    (tmp_path / file).write_bytes(content)
    with pytest.raises(StudentError, match="damaged"):
        load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(StudentError, match="missing"):
        load(tmp_path)


def test_an_array_of_python_objects_is_never_read(tmp_path: Path, model: LabelModel) -> None:
    save(tmp_path, model)
    np.save(tmp_path / "bias.npy", np.array([print], dtype=object), allow_pickle=True)
    header = json.loads((tmp_path / FILE).read_bytes())
    header["digests"]["bias"] = digest_of(tmp_path / "bias.npy")
    (tmp_path / FILE).write_text(json.dumps(header))

    with pytest.raises(StudentError, match="damaged"):
        load(tmp_path)


def test_a_label_of_one_row_and_a_task_of_one_label_are_learned() -> None:
    samples = label_samples(60, 1)
    alone = [s for s in samples if s.target == "Music"]
    rare = [*alone, next(s for s in samples if s.target == "Book")]

    assert fitted(alone).answer(alone[0].messages).text == "Music"
    assert fitted(rare).answer(alone[0].messages).text == "Music"


def test_rows_without_a_common_ngram_make_no_student() -> None:
    samples = label_samples(4, 1)
    with pytest.raises(ValueError, match="in common"):
        fitted([type(samples[0])(asked(text), text) for text in ("äb", "çd")])
