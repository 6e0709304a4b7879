"""Options that several commands share, how they print a result, and how our errors end them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="UNDERSTUDY_CONFIG", help="The config file.")
]
ServerOption = Annotated[
    str | None, typer.Option(help="The server's URL, if not as in the config.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        envvar="UNDERSTUDY_KEY", help="A client key; else the config's first with the right."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
TaskArgument = Annotated[str, typer.Argument(help="The task's tag.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept with the time and the key's name.")]
DEFAULT_CONFIG = Path("config.yaml")


def print_result(result: Any, *, as_json: bool, before: str = "") -> None:
    """Prints what a server has done: its sentence `done`, or all of it as JSON."""
    text = json.dumps(result, indent=2, ensure_ascii=False) if as_json else None
    typer.echo(text or f"{before}{result.get('done')}")


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Our own errors end a command with their message: 2 for the config, 1 for the rest."""
    from store.errors import ConfigError, UnderstudyError  # noqa: PLC0415  (see cli.main)

    try:
        yield
    except UnderstudyError as error:
        typer.echo(f"understudy: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
