"""The accepted config's copies: what children start with, whatever happens to the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.serve.accepted import AcceptedConfigs

HARM: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "deleted with its folder": lambda file: shutil.rmtree(file.parent),
    "a directory in its place": lambda file: (file.unlink(), file.mkdir()),
    "a file in place of the folder": lambda file: (
        shutil.rmtree(file.parent),
        file.parent.write_text("x"),
    ),
    "emptied": lambda file: file.write_bytes(b""),
    "edited": lambda file: file.write_bytes(b"server: {port: 1}"),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\n"),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_copy_that_is_not_as_it_was_written_is_written_again(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    copies = AcceptedConfigs(tmp_path)
    file = copies.write(b"server: {port: 0}")
    assert copies.restore() == []
    harm(file)
    assert copies.restore() == [file]
    assert file.read_bytes() == b"server: {port: 0}"
    assert file.stat().st_mode & 0o777 == 0o600
    assert copies.restore() == []


def test_a_copy_that_is_not_needed_any_more_stays_away(tmp_path: Path) -> None:
    copies = AcceptedConfigs(tmp_path)
    first, second = copies.write(b"a"), copies.write(b"b")
    copies.keep_only([second])
    assert copies.restore() == []
    assert not first.exists()


def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    copies = AcceptedConfigs(tmp_path / "data")
    file = copies.write(b"a")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").write_text("in the way")
    assert copies.restore() == []
    (tmp_path / "data").unlink()
    assert copies.restore() == [file]
