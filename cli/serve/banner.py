"""What `understudy serve` shows when it starts: where it is, what it serves, how to use it."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.serve.plan import ServePlan
from store.settings.config import Config
from store.settings.teachers import needs_litellm


def show(plan: ServePlan, console: Console | None = None) -> None:
    """Prints the start screen."""
    console = console or Console(stderr=True)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in summary(plan.config):
        facts.add_row(name, Text(value))
    facts.add_row("status", Text(f"understudy status --config {plan.config_path}"))
    facts.add_row("", Text(f"{plan.url}/distill"))
    console.print(Panel(facts, title=f"Understudy on {plan.url}", title_align="left"))
    console.print("What changes in a client:\n")
    console.print(Text(client_hint(plan), style="cyan"))
    console.print()
    for note in plan.notes:
        console.print(Text(f"understudy: {note}"))


def summary(config: Config) -> list[tuple[str, str]]:
    """The config in a few pairs of a name and a text, for `serve` and `check`."""
    teacher = config.teacher.model or config.model_list[0]["model_name"]
    others = dict.fromkeys(entry["model_name"] for entry in config.model_list)
    others.pop(teacher, None)
    through = "through LiteLLM" if needs_litellm(config) else "called directly"
    return [
        ("teacher", f"{teacher} ({through})"),
        *([("also", ", ".join(others))] if others else []),
        ("student", f"{config.task_defaults.train.base} + one LoRA adapter a task"),
        ("tasks", ", ".join(config.tasks) or "every tag that requests bring, with task_defaults"),
        ("keys", ", ".join(k.name for k in config.server.keys) or "none, loopback only"),
        ("data", str(config.data_dir.absolute())),
    ]


def client_hint(plan: ServePlan) -> str:
    """Five lines of Python that use the proxy."""
    key = "one of server.keys" if plan.config.server.keys else "none needed"
    task = next(iter(plan.config.tasks), "my-task")
    return (
        "  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{plan.url}/v1", api_key="{key}",\n'
        f'                  default_headers={{"X-Understudy-Task": "{task}"}})\n'
        "  answer = client.chat.completions.create(model="
        f'"{plan.config.teacher.model or plan.config.model_list[0]["model_name"]}",\n'
        '      messages=[{"role": "user", "content": "…"}])'
    )
