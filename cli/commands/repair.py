"""`understudy repair`: repairs the database of a data folder that no server owns.

Imports what it needs when it runs, as cli.main does.
"""
# ruff: noqa: PLC0415  (see above)

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from cli.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption, faults

if TYPE_CHECKING:
    from distill.repair import Repair


def repair(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Save what can be read of a damaged database, fill it from the journal's copies, and keep the
    old file beside it."""
    with faults():
        from distill.repair import repair as run
        from store.errors import ConfigError
        from store.settings.config import load_config

        settings = load_config(config)
        if not settings.data_dir.exists():
            raise ConfigError(f"data_dir {settings.data_dir} is not there: nothing was ever kept")
        os.umask(0o077)
        result = run(settings)
        typer.echo(json.dumps(asdict(result), indent=2) if as_json else in_words(result))


def in_words(result: Repair) -> str:
    """What was found and done, for people."""
    if result.fault is None and not result.filled:
        done = "an interrupted repair was finished" if result.kept else "there is nothing to do"
        lines = [
            f"{done}: all of the database can be read, and it has what was kept of the journal"
        ]
    elif result.fault is None:
        lines = ["all of the database can be read; what it lacked came from the journal's copies"]
    else:
        lines = [f"the database was damaged ({result.fault}), and there is a new one"]
    if result.tables:
        lines.append(f"{'table':<14}{'saved':>10}{'filled':>10}{'lost':>10}")
    for table in result.tables:
        lost = "unknown" if table.lost is None else f"{table.lost:,}"
        lines.append(f"{table.name:<14}{table.saved:>10,}{table.filled:>10,}{lost:>10}")
    if result.kept:
        lines.append(f"the old file is kept as {result.kept}; delete it when you do not need it")
    return "\n".join(lines)
