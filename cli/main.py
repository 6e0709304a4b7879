"""The commands. This is the composition root: it alone knows both planes.

Each command imports what it needs when it runs, so that `understudy serve` starts its proxy after a
third of a second, before slower imports.
"""
# ruff: noqa: PLC0415  (see above)

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands import by_hand
from cli.commands.forget import forget
from cli.commands.init import init
from cli.commands.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    KeyOption,
    ServerOption,
    faults,
)
from cli.commands.repair import repair

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="understudy",
    help="An OpenAI-compatible proxy that lets a small local student take over the tasks it has "
    "learned from your teacher's answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would show secrets among the local variables
    rich_markup_mode=None,
)


app.command()(init)


@app.command()
def serve(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the proxy, the control plane and, if the config needs it, LiteLLM, until stopped."""
    with faults():
        from cli.serve.serve import serve as run

        run(config)


@app.command()
def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Have a running server read its config again, without dropping a request."""
    with faults():
        from cli.commands.reload import reload as run

        typer.echo(run(config))


@app.command()
def status(
    task: Annotated[str | None, typer.Argument(help="Only this task, in full.")] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    server: ServerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
) -> None:
    """Show how each task stands: traces, run, certificate, route, latency, tokens and money."""
    import json

    with faults():
        from rich.console import Console

        from cli.status.client import fetch_status, server_of
        from cli.status.table import render_status, render_task

        if server is None:
            server, key = server_of(config, key)
        wide = None if sys.stdout.isatty() else 140
        console = Console(width=wide, markup=False, highlight=False)
        while True:
            result = fetch_status(server, key=key, task=task)
            if watch and not as_json:
                console.clear()
            if as_json:
                typer.echo(json.dumps(result, indent=None if watch else 2, ensure_ascii=False))
            else:
                console.print(render_task(result) if task else render_status(result))
            if not watch:
                return
            time.sleep(1)


by_hand.register(app)
app.command()(forget)
app.command()(repair)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check the config file and say what it means; start nothing."""
    with faults():
        from cli.serve.banner import summary
        from store.settings.config import load_config
        from store.settings.teachers import teacher_pool

        settings = load_config(config)
        teacher_pool(settings)
        typer.echo(f"{config} can be used")
        for name, value in summary(settings):
            typer.echo(f"{name:<8} {value}")
        for warning in settings.warnings:
            typer.echo(f"warning  {warning}")


@app.command()
def backtest(
    file: Annotated[
        Path, typer.Argument(help="JSON lines with `messages` and `answer`, or OpenAI fine-tuning.")
    ],
    *,
    test: Annotated[
        Path | None, typer.Option(help="Rows to send as live traffic when the run has ended.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task's tag.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows sent as traffic, from the beginning; synthetic inputs are drawn from the "
            "others. Else 80 %.",
        ),
    ] = None,
    as_json: JsonOption = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings to use; else the defaults.")
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="The agreement to be proven, 0 to 1. May be given several times: the student is "
            "trained once, and serves under the lowest."
        ),
    ] = None,
    price_in: Annotated[
        float, typer.Option(min=0, help="The teacher's price of a million tokens read, US dollars.")
    ] = 2.0,
    price_out: Annotated[
        float, typer.Option(min=0, help="The same of a million tokens written.")
    ] = 8.0,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the data folder here instead of deleting it.")
    ] = None,
) -> None:
    """Replay logged answers through the real product: what would it have saved?"""
    with faults():
        from demo.backtest.backtest import run

        code = run(
            file,
            test=test,
            task=task,
            limit=limit,
            as_json=as_json,
            config=config,
            thresholds=threshold or (),
            price_in=price_in,
            price_out=price_out,
            keep=keep,
        )
    raise typer.Exit(code)


@app.command(name="import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="JSON lines, JSON or CSV, also gzipped.", show_default=False),
    ],
    *,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="The files' format; else it is recognised. A wrong one is answered with a list.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task of all rows.")] = None,
    tag_from: Annotated[
        str | None,
        typer.Option(help="The field that holds a row's task, such as metadata.feature."),
    ] = None,
    slug: Annotated[
        bool, typer.Option("--slug", help="Make a tag of a task's name that is none.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="The teacher of all rows, as clients name it.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The data folder, if not as in the config.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take other logs of a teacher's answers as traces."""
    with faults():
        from cli.imports.command import run

        run(
            files,
            format_name=format_,
            task=task,
            tag_from=tag_from,
            slug=slug,
            model=model,
            data_dir=data_dir,
            config=None if config == DEFAULT_CONFIG and not config.exists() else config,
            as_json=as_json,
        )


@app.command()
def demo(as_json: JsonOption = False) -> None:
    """Show the whole loop in some minutes, without a key and without a download."""
    with faults():
        from demo.journey.journey import run

        code = run(as_json=as_json)
    raise typer.Exit(code)


@app.command()
def version() -> None:
    """Print the version."""
    from store.distribution import installed_version

    typer.echo(f"understudy {installed_version()}")
