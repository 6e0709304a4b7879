"""The base student's tokenizer: byte-level BPE over the generated text, with a ChatML template.

Any UTF-8 text goes in and comes out again; what the merges do not know falls apart into bytes.
Digits stand alone, so that numbers are copied digit by digit.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from demo.base import corpus, english

PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROLES = ("system", "user", "assistant")

# Read for the merges, with as many phrases of common English words: real requests hold other words
# than the families do.
EXAMPLES = 20_000

CHAT_TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)


def train(vocabulary: int, seed: int, examples: int = EXAMPLES) -> Tokenizer:
    """A tokenizer of so many tokens, the same one for the same seed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, examples), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as mlx_lm expects them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=1) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _texts(seed: int, examples: int) -> Iterator[str]:
    for example in itertools.islice(corpus.examples(seed), examples):
        for message in example.messages():
            yield message["content"]
    rng = random.Random(seed)
    for _ in range(examples):
        phrase = english.phrase(rng, 4, 12)
        yield phrase.capitalize() if rng.random() < 0.3 else phrase
    for role in ROLES:
        yield from itertools.repeat(role, 50)
