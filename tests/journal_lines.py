"""What stands in a journal that nobody collects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines(data: Path) -> list[dict[str, Any]]:
    """The lines of all segments of a data folder, oldest first."""
    files = sorted((data / "journal").glob("*.*"))
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]
