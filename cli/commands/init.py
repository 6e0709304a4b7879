"""understudy init: writes a starter config for a teacher and for this machine."""
# ruff: noqa: PLC0415  (see cli.main)

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.commands.options import DEFAULT_CONFIG, ConfigOption, faults


def init(
    *,
    url: Annotated[
        str | None, typer.Option(help="The teacher's URL, with /v1; else OpenAI's.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The teacher's model; provider/model for LiteLLM's other providers."),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(help="The environment variable that has the teacher's key; empty: no key."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="What students are trained from; else by this machine.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0: any free one.")] = 4100,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: defaults for what is not given.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write a starter config: asks for your teacher, and picks a base for this machine."""
    with faults():
        from cli.commands.starter import answered, check_place, next_steps, write_starter

        check_place(config, force=force)
        ask = _prompted if sys.stdin.isatty() and not yes else _default
        starter = answered(url, model, key_variable, ask, base=base, host=host, port=port)
        write_starter(config, starter, force=force)
        for line in next_steps(config, starter):
            typer.echo(line)


def _prompted(question: str, default: str) -> str:
    return str(typer.prompt(question, default=default)).strip()


def _default(question: str, default: str) -> str:
    return default
