"""Nobody but the owner may read a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.serve.data_folder import hold_data_dir


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_an_old_folder_that_others_could_read_is_closed_to_them(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "data"
    before = os.umask(umask)
    try:
        (folder / "runs" / "one").mkdir(parents=True)
        (folder / "runs" / "one" / "rows.jsonl").write_text("a prompt")
        (folder / "understudy.duckdb").write_text("traces")
        (folder / "link").symlink_to(tmp_path / "nowhere")
        with hold_data_dir(folder):
            (folder / "new").write_text("x")
            places = [folder, *(p for p in folder.rglob("*") if not p.is_symlink())]
            assert [p for p in places if p.stat().st_mode & 0o077] == []
            assert (folder / "runs" / "one" / "rows.jsonl").read_text() == "a prompt"
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
