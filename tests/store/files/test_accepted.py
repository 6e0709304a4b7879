"""The copy of the accepted config, whatever stands in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from store.errors import ConfigError
from store.files.accepted import read_accepted
from tests.helpers.serving import settings


def test_a_copy_means_what_the_config_meant(tmp_path: Path) -> None:
    raw = settings("http://127.0.0.1:1/v1", tmp_path / "data")
    (tmp_path / "config-1.yaml").write_text(yaml.safe_dump(raw))
    assert read_accepted(tmp_path / "config-1.yaml").data_dir == tmp_path / "data"


def nothing(path: Path) -> None:
    """Leaves it as it is: not there."""


def rubbish(path: Path) -> None:
    path.write_bytes(b"\x00[")


@pytest.mark.parametrize("put", [nothing, rubbish, os.mkfifo, os.mkdir])
def test_what_is_no_copy_is_an_error_and_never_waited_for(
    put: Callable[[Path], None], tmp_path: Path
) -> None:
    put(tmp_path / "config-1.yaml")
    with pytest.raises(ConfigError, match=r"config-1\.yaml"):
        read_accepted(tmp_path / "config-1.yaml")
