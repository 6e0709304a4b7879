"""Unused code is found, and there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.dead_code import dead_code
from tests.helpers.paths import ROOT

SAMPLE = """
from dataclasses import dataclass

@dataclass
class Record:
    read_from_json: int

    def unused(self):
        return self

Record(1)
"""


def test_an_unused_method_is_found_and_a_field_is_not_unused_code(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "sample.py").write_text(SAMPLE)

    assert dead_code(tmp_path) == ["store/sample.py:8: unused method unused"]


@pytest.mark.slow
def test_nothing_is_unused() -> None:
    assert dead_code() == []
