"""What stands in a journal that nobody collects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def journal_text(folder: Path) -> str:
    """All that has been journalled in a folder, oldest first."""
    while True:
        found = sorted([*folder.glob("*.open"), *folder.glob("*.jsonl")])
        try:
            return "".join(path.read_text(encoding="utf-8") for path in found)
        except FileNotFoundError:  # sealed between listing and reading
            continue


def lines(data: Path) -> list[dict[str, Any]]:
    """The lines in the journal of a data folder, oldest first."""
    return [json.loads(line) for line in journal_text(data / "journal").split("\n") if line]
