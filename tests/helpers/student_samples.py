"""A tiny task for the base student, in which the answer is a function of the text: what the tests
of training and serving learn from. Small enough to be learnt from some dozens of rows.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from pathlib import Path

from distill.dataset.rows import Row
from distill.train.train import TrainItem, train
from store.chat.shape import input_hash
from store.records import Split
from store.settings.tasks import TrainSettings
from tests.helpers.paths import ROOT

BASE = str(ROOT / "demo" / "base" / "weights")
SYSTEM = "Which thing is it, and which colour? Answer with JSON."
COLOURS = ("red", "blue", "green", "black", "white", "brown")
THINGS = ("lamp", "chair", "coat", "cup", "door", "book", "shoe", "box")
OPENINGS = ("I saw", "We need", "Please send", "There is", "She sold", "They want")

# quick settings for a base of a million parameters
SETTINGS = TrainSettings(
    base=BASE,
    rank=32,
    scale=2.0,
    learning_rate=5e-3,
    batch_size=4,
    iterations=80,
    validations=4,
    max_seq_length=256,
    seed=1,
)


def items(count: int, seed: int) -> list[TrainItem]:
    """Generated rows; other seeds give other numbers in them, so hardly ever the same input."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        colour, thing = rng.choice(COLOURS), rng.choice(THINGS)
        text = f"{rng.choice(OPENINGS)} a {colour} {thing} number {rng.randrange(10_000)}."
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        result.append(TrainItem(messages, f'{{"thing": "{thing}", "colour": "{colour}"}}'))
    return result


def trained_adapter(folder: Path) -> Path:
    """An adapter trained on the sample task. Takes some seconds, the first time."""
    report = asyncio.run(
        train(
            folder,
            train=items(80, seed=1),
            valid=items(20, seed=2),
            settings=SETTINGS.model_copy(update={"iterations": 60, "validations": 2}),
            progress=lambda *_: None,
        )
    )
    return report.adapter


def rows(count: int, seed: int, split: Split = "heldout") -> list[Row]:
    """The same, as rows to evaluate on."""
    return [
        Row(
            trace_id=f"trace-{number}",
            input_hash=input_hash(item.messages),
            split=split,
            fingerprint="f",
            model="teacher",
            messages=item.messages,
            params={},
            target=item.target,
        )
        for number, item in enumerate(items(count, seed))
    ]


# what Qwen3's own template does, as far as text messages go
THINKING_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{{- message.content.lstrip('\\n') + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


def thinking_base(folder: Path) -> Path:
    """The base student with a vocabulary and a chat template for reasoning.

    Two rarely used tokens give their places, as the weights have no more.
    """
    base = folder / "base"
    shutil.copytree(BASE, base)
    content = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    model = content["model"]
    rarest = sorted(model["vocab"], key=model["vocab"].__getitem__)[-2:]
    model["merges"] = [m for m in model["merges"] if "".join(m).replace(" ", "") not in rarest]
    for name, thought in zip(rarest, ("<think>", "</think>"), strict=True):
        model["vocab"][thought] = place = model["vocab"].pop(name)
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        content["added_tokens"].append({"id": place, "content": thought, **plain})
    (base / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = THINKING_TEMPLATE
    (base / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return base
