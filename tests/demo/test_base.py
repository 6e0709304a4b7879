"""The base student: its generated text, its tokenizer, and the weights that ship."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from demo.base import bank, corpus
from demo.base import tokenizer as bpe
from demo.tasks.tasks import TASKS
from tests.helpers.paths import ROOT

WEIGHTS = ROOT / "demo" / "base" / "weights"


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))


def some(seed: int, count: int) -> list[str]:
    """The texts of a number of examples."""
    examples = itertools.islice(corpus.examples(seed), count)
    return [message["content"] for example in examples for message in example.messages()]


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    assert some(1, 200) == some(1, 200)
    assert some(1, 200) != some(2, 200)


def test_the_corpus_is_the_same_in_every_process() -> None:
    # String hashing differs between processes: a set in the wrong place would show here.
    script = (
        "import itertools, json; from demo.base import corpus; "
        "print(json.dumps([e.messages() for e in itertools.islice(corpus.examples(1), 200)]))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    texts = [message["content"] for messages in json.loads(shown) for message in messages]
    assert texts == some(1, 200)


@pytest.mark.parametrize("family", corpus.FAMILIES, ids=lambda family: family.__name__)
def test_every_family_asks_something_and_answers_it(family: corpus.Family) -> None:
    for seed in range(200):
        example = family(Random(seed))
        assert example.user.strip()
        assert example.answer.strip()
        if example.answer.startswith(("{", "[")):
            json.loads(example.answer)


def test_the_bank_of_tasks_is_pinned() -> None:
    assert len(bank.tasks()) == bank.TASKS
    assert all(2 <= len(task.sentences) <= 5 for task in bank.tasks())


@pytest.mark.slow
def test_the_demos_tasks_are_not_in_the_corpus() -> None:
    seen = "\n".join(some(0, 6000)).lower()
    for task in TASKS.values():
        assert task.system.lower() not in seen
        for text in itertools.islice(task.texts("corpus"), 200):
            assert text.lower() not in seen


def test_training_the_tokenizer_again_gives_the_same() -> None:
    first, second = bpe.train(400, seed=0, examples=300), bpe.train(400, seed=0, examples=300)
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() == 400
    assert [first.token_to_id(token) for token in bpe.SPECIAL] == [0, 1, 2]


@settings(max_examples=200, deadline=None)
@given(text=st.text())
@pytest.mark.slow
def test_any_text_goes_in_and_comes_out_again(shipped: Tokenizer, text: str) -> None:
    assert shipped.decode(shipped.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["Grüße aus Kraków, 9,50 € 🙂", "東京\n\ttab  two", '{"a": [1, null]}']
)
def test_text_of_all_kinds_survives(shipped: Tokenizer, text: str) -> None:
    assert shipped.decode(shipped.encode(text).ids, skip_special_tokens=False) == text


def test_digits_are_tokens_of_their_own(shipped: Tokenizer) -> None:
    assert len(shipped.encode("2024").ids) == 4


def test_the_shape_is_what_mlx_lm_expects(shipped: Tokenizer) -> None:
    config = json.loads((WEIGHTS / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    assert config["vocab_size"] == shipped.get_vocab_size()
    assert config["eos_token_id"] == shipped.token_to_id(bpe.END)
    assert (WEIGHTS / "model.safetensors").stat().st_size < 6_000_000


ASK = """
import json, sys
from distill.train import blas
blas.enable()
from mlx_lm import generate, load
model, tokenizer, *_ = load(sys.argv[1])
answers = []
for system, user in json.load(sys.stdin):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    answers.append(generate(model, tokenizer, prompt, max_tokens=60))
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_the_weights_do_what_a_prompt_says() -> None:
    asked = {
        ("Repeat the text.", "blue lamp 4711"): "blue lamp 4711",
        ("Extract item, city.", "item: tent. city: Oslo. color: red"): (
            '{"item": "tent", "city": "Oslo"}'
        ),
        ("Write the date as YYYY-MM-DD.", "March 9, 2024"): "2024-03-09",
    }
    shown = subprocess.run(
        [sys.executable, "-c", ASK, str(WEIGHTS)],
        cwd=ROOT,
        input=json.dumps([list(pair) for pair in asked]),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(shown.splitlines()[-1]) == list(asked.values())
