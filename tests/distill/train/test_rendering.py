"""A conversation is rendered to the tokens that the server will use, with any chat template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer

from distill.train.rendering import Renderer
from tests.helpers.student_samples import BASE, THINKING_TEMPLATE, items, thinking_base

MESSAGES = items(1, seed=1)[0].messages


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(Path(BASE))


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(thinking_base(tmp_path_factory.mktemp("thinking")))


def test_a_row_is_prompt_answer_and_end(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer)
    row = renderer.row(MESSAGES, '{"a": 1}')
    prompt, answer = row.tokens[: row.answer], row.tokens[row.answer :]
    assert prompt == renderer.prompt(MESSAGES)
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(answer) == '{"a": 1}<|im_end|>'
    assert answer[-1] == tokenizer.eos_token_id
    assert len(row) == len(row.tokens)


def test_thinking_is_switched_off_in_the_template(thinking: Any) -> None:
    assert thinking.has_thinking
    renderer = Renderer(thinking)
    row = renderer.row(MESSAGES, "red")
    text = thinking.decode(row.tokens)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nred<|im_end|>")
    assert thinking.decode(row.tokens[row.answer :]) == "red<|im_end|>"
    assert row.tokens[: row.answer] == renderer.prompt(MESSAGES)


@pytest.mark.parametrize("target", ["red", " red", "\n\nred", "{", "naïve café ☕", "1 + 1", "a\n"])
def test_the_answer_does_not_change_the_prompts_tokens(
    tokenizer: Any, thinking: Any, target: str
) -> None:
    for each in (tokenizer, thinking):
        renderer = Renderer(each)
        row = renderer.row(MESSAGES, target)
        assert row.tokens[: row.answer] == renderer.prompt(MESSAGES)
        assert each.decode(row.tokens[row.answer : -1]) == target


def test_developer_becomes_system_and_parts_become_text(tokenizer: Any) -> None:
    parts = [{"type": "text", "text": "hello"}]
    fancy = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    plain = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    renderer = Renderer(tokenizer)
    assert renderer.prompt(fancy) == renderer.prompt(plain)


def test_the_end_token_is_the_templates(tmp_path: Path) -> None:
    """Some bases end a turn with another token than their EOS; the server stops at both."""
    folder = tmp_path / "base"
    shutil.copytree(BASE, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = "<|endoftext|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    plain = load_tokenizer(folder)
    both = load_tokenizer(folder, eos_token_ids=[plain.convert_tokens_to_ids("<|im_end|>")])
    assert plain.decode(Renderer(plain).row(MESSAGES, "a").tokens[-1:]) == "<|endoftext|>"
    assert both.decode(Renderer(both).row(MESSAGES, "a").tokens[-1:]) == "<|im_end|>"


def test_the_templates_differ_by_the_thought_alone(tokenizer: Any, thinking: Any) -> None:
    assert "enable_thinking" in THINKING_TEMPLATE
    plain = tokenizer.decode(Renderer(tokenizer).prompt(MESSAGES))
    thought = thinking.decode(Renderer(thinking).prompt(MESSAGES))
    assert thought == plain + "<think>\n\n</think>\n\n"
