"""`understudy import`: checks the options, imports each file, prints a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from cli.imports.formats import FORMATS
from cli.imports.importing import (
    FileReport,
    KeepRules,
    Labels,
    import_file,
    open_journal,
    teacher_names,
)
from cli.imports.shapes import quoted, summary
from store.errors import ConfigError, ImportFailed
from store.settings.config import TAG, load_config


def run(
    files: Sequence[Path],
    *,
    format_name: str | None,
    task: str | None,
    tag_from: str | None,
    slug: bool,
    model: str | None,
    data_dir: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Imports the files in order. `config`: None without a config file.

    Raises ConfigError when the options do not fit, JournalError when the disk is full, and
    ImportFailed at the end, when a file could not be read or nothing could be taken.
    """
    if format_name is not None and format_name not in FORMATS:
        raise ConfigError(f"--format takes one of {', '.join(FORMATS)}")
    if task is not None and not TAG.fullmatch(task):
        raise ConfigError(
            "--task takes 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit"
        )
    if task is not None and tag_from is not None:
        raise ConfigError("--task is for all rows, --tag-from for each: give one of them")
    settings = load_config(config) if config else None
    if data_dir is None and settings is None:
        raise ConfigError("there is no config.yaml here: give --config or --data-dir")
    folder = data_dir or (settings.data_dir if settings else Path())
    labels, keep = Labels(task, tag_from, model, slug), KeepRules()
    if settings is not None:
        labels = Labels(task, tag_from, model, slug, teacher_names(settings))
        keep = KeepRules.by(settings.privacy)
    journal = open_journal(settings, folder)
    done: list[FileReport] = []
    try:
        for file in files:
            done.append(import_file(file, journal, labels, format_name=format_name, keep=keep))
            if not as_json:
                typer.echo(_told(done[-1]))
    finally:
        journal.close()
    if as_json:
        files_told = [asdict(one) for one in done]
        typer.echo(json.dumps({"data_dir": str(folder.absolute()), "files": files_told}, indent=2))
    failed = [one.error for one in done if one.error]
    if failed:
        raise ImportFailed(failed[0] if as_json or len(done) == 1 else _failed(len(failed), done))
    taken = sum(one.taken for one in done)
    if not taken:
        raise ImportFailed("no row could be taken")
    if not as_json:
        typer.echo(
            f"{taken:,} rows are in the journal of {folder.absolute()}. A server collects them "
            "while it runs or when it starts, each call once."
        )


def _told(one: FileReport) -> str:
    if one.error and not one.rows:
        return one.error
    if one.format is None:
        return f"{one.file}: it holds no rows"
    lines = [f"{one.file}: {one.format}, {one.taken:,} of {one.rows:,} rows taken"]
    lines += [f"{count:>9,}  {reason}" for reason, count in one.left_out.items()]
    if one.not_tags:
        lines.append(f"           such as {', '.join(map(quoted, one.not_tags))}")
    if one.taken:
        lines.append(f"  answers: {summary(one.answers)}")
        lines += [f"           {quoted(sample)}" for sample in one.answers.samples]
    return "\n".join([*lines, one.error] if one.error else lines)


def _failed(failed: int, done: list[FileReport]) -> str:
    return f"{failed} of {len(done)} files could not be read, or not to the end"
