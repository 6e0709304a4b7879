"""Runs commands as a user types them, with a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app


def understudy(*arguments: object, env: dict[str, str] | None = None) -> Result:
    """Runs a command in this process."""
    given = {"OPENAI_API_KEY": "sk-secret", **(env or {})}
    return CliRunner().invoke(app, list(map(str, arguments)), env=given)


def write_config(folder: Path, **more: Any) -> Path:
    file = folder / "config.yaml"
    entry = {"model_name": "big", "litellm_params": {"model": "openai/gpt-4.1"}}
    file.write_text(
        yaml.safe_dump(
            {
                "model_list": [entry],
                "data_dir": str(folder / "data"),
                "server": {"port": 0},
                **more,
            }
        )
    )
    return file
