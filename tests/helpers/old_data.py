"""The data folder of the version before, unpacked; see tests/fixtures/README.md."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from demo.tasks.tasks import TASKS
from store.settings.config import Config, load_config
from tests.helpers.paths import ROOT
from tests.helpers.served import Served
from tests.helpers.teacher_server import Received, Reply, completion

FIXTURE = ROOT / "tests" / "fixtures" / "old_data"
CLIENT_KEY = "sk-of-the-support-app"
REVIEWS = TASKS["review-sentiment"]  # whose texts all three tasks use
PROMPTS = {
    "reviews": REVIEWS.system,
    "coin": "Heads or tails? Reply with one word.",
    "openings": 'What does the text begin with? Reply with JSON: {"begins": "thing|person"}',
}


def environment(teacher_url: str = "http://127.0.0.1:9/v1") -> dict[str, str]:
    """What the config takes from the environment."""
    return {
        "TEACHER_URL": teacher_url,
        "TEACHER_KEY": "sk-of-the-teacher",
        "CLIENT_KEY": CLIENT_KEY,
    }


def expected() -> dict[str, Any]:
    """What the old code read."""
    found: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
    return found


def unpack(folder: Path) -> Path:
    """The config file of an old installation that is made in `folder`, with its data and its base.

    Paths in it are relative: whoever uses it works in `folder`.
    """
    with tarfile.open(FIXTURE / "understudy-data.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    shutil.copy(FIXTURE / "config.yaml", folder)
    (folder / "base").symlink_to(ROOT / "demo" / "base" / "weights")
    return folder / "config.yaml"


@dataclass(frozen=True)
class Old:
    """An unpacked installation. The working directory is its folder."""

    config_file: Path
    expected: dict[str, Any] = field(default_factory=expected)

    @property
    def config(self) -> Config:
        return load_config(self.config_file)


class ServedOld(Served):
    """`understudy serve` on an old installation, with its own config file."""

    def __init__(self, old: Old) -> None:
        self.data_dir = old.config.data_dir
        self.config_file = old.config_file
        self._output = old.config_file.with_name("output")
        self._env = {}

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=150
        )


def opening(text: str) -> str:
    """The label of a review: easy to learn from how it begins."""
    return "thing" if text.split(maxsplit=1)[0] in ("The", "It", "A", "An", "This") else "person"


def teacher_says(request: Received) -> Reply:
    """What the teacher of then would say now."""
    system, user = (m["content"] for m in request.json["messages"][:2])
    label = opening(user)
    if system == PROMPTS["openings"]:
        return completion(json.dumps({"begins": label}))
    return completion("heads" if system == PROMPTS["coin"] else label)
