"""The status as a table: one row for each task, or every number of one task.

No field has to be there: the answer of an older or newer server is shown as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.status import student
from cli.status.wording import NOTHING, mapping, number, percent, proven, seconds, text, when

Line = str | Text
LEFT_OUT = ("notice", "promise", "student", "suspicion", "audits", "prompts", "history")  # if empty


def render_status(status: Any) -> RenderableType:
    """All tasks as one table, a row for each, and what is wrong with the server itself."""
    tasks = _tasks(status)
    parts: list[RenderableType] = [_overview(tasks)] if tasks else [_no_tasks()]
    for task in tasks:
        for line in student.notices(task):
            parts.append(Text(f"{text(task.get('task'))}: ", style=line.style).append_text(line))
    whole = mapping(status)
    store = mapping(whole.get("store"))
    if store.get("ok") is False:
        parts.append(Text(f"store: {store.get('error')}", style="red"))
    if store.get("damaged"):
        parts.append(Text(f"journal lines that could not be read: {store['damaged']}"))
    if store.get("forgotten"):
        parts.append(Text(f"journal lines dropped, of what was forgotten: {store['forgotten']}"))
    if store.get("forgetting"):
        parts.append(Text(f"forgettings under way: {store['forgetting']}", style="yellow"))
    students = mapping(whole.get("students"))
    if students:
        parts.append(Text("students: " + ", ".join(f"{k} {v}" for k, v in students.items())))
    return Group(*parts)


def render_task(task: Mapping[str, Any]) -> RenderableType:
    """Everything about one task, a line for each number."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, lines in (
        ("task", [text(task.get("task"))]),
        ("notice", student.notices(task)),
        ("promise", [str(task["promise"])] if task.get("promise") else []),
        ("student", student.way(task)),
        ("suspicion", student.suspicion(task)),
        ("audits", student.audits(task)),
        ("traces", [number(task.get("traces")), *_new_traces(task)]),
        ("due", _due(task)),
        ("now", _stage(task)),
        ("examples", _examples(task)),
        ("last run", _last_run(task, detailed=True)),
        ("certificate", _whole_certificate(task)),
        ("prompts", student.prompts(task)),
        ("route", _all_of(task.get("route"), without=("templates",))),
        ("served", _served(task)),
        ("tokens, money", _spent(task, detailed=True)),
        ("history", student.history(task)),
    ):
        if lines or name not in LEFT_OUT:
            table.add_row(name, _cell(lines))
    return table


def _overview(tasks: list[Mapping[str, Any]]) -> Table:
    table = Table(show_lines=True)
    for title in ("task", "run", "route", "answers\np50/p95 ms", "tokens\nUS dollars"):
        table.add_column(title, overflow="fold")
    for task in tasks:
        cells: tuple[Sequence[Line], ...] = (
            [text(task.get("task")), f"{number(task.get('traces'))} traces"],
            (_stage(task) or _last_run(task) or _due(task)) + _examples(task),
            [*student.loud(task), *_route(task), *student.step(task), *_certificate(task)],
            _served(task),
            _spent(task),
        )
        table.add_row(*map(_cell, cells))
    return table


def _cell(lines: Sequence[Line]) -> Text:
    return Text("\n").join(Text(x) if isinstance(x, str) else x for x in lines or [NOTHING])


def _no_tasks() -> Text:
    return Text(
        "No request had a task yet. Tag one with the header X-Understudy-Task, "
        'with metadata {"task": …}, or by the key\'s own task.'
    )


def _stage(task: Mapping[str, Any]) -> list[str]:
    stage = mapping(task.get("stage"))
    if not stage:
        return []
    done, total = stage.get("done"), stage.get("total")
    how_far = f" {number(done)} of {number(total)}" if total else ""
    lines = [f"{text(stage.get('stage'))}{how_far}, {seconds(stage.get('seconds'))}"]
    if stage.get("note"):
        lines.append(str(stage["note"]))
    return lines


def _examples(task: Mapping[str, Any]) -> list[str]:
    lines = []
    for origin, counts in mapping(task.get("examples")).items():
        rejected = mapping(counts).get("rejected")
        without = f", {number(rejected)} rejected" if rejected else ""
        lines.append(f"{number(mapping(counts).get('kept'))} {origin}{without}")
    return lines


def _new_traces(task: Mapping[str, Any]) -> list[str]:
    return [f"{number(task['new_traces'])} new"] if task.get("new_traces") is not None else []


def _due(task: Mapping[str, Any]) -> list[str]:
    return [str(task["due"])] if task.get("due") else []


def _last_run(task: Mapping[str, Any], *, detailed: bool = False) -> list[str]:
    run = mapping(task.get("last_run"))
    if not run:
        return []
    lines = [text(run.get("state"))]
    if run.get("reason"):
        lines.append(str(run["reason"]))
    if detailed:
        lines.append(f"run {text(run.get('run_id'))}")
        stages = mapping(run.get("stages"))
        lines += [f"{name}: {seconds(took)}" for name, took in stages.items()]
    return lines


def _certificate(task: Mapping[str, Any]) -> list[str]:
    found = mapping(task.get("certificate"))
    if not found:
        return []
    return [f"proven {proven(found)}", f"coverage {percent(found.get('coverage'))}"]


def _route(task: Mapping[str, Any]) -> list[str]:
    route = mapping(task.get("route"))
    return [f"{text(route.get('target'))}: {text(route.get('reason'))}"] if route else []


def _served(task: Mapping[str, Any]) -> list[str]:
    served = task.get("served")
    rows = (
        [(name, mapping(row)) for name, row in served.items()]
        if isinstance(served, Mapping)
        else [(text(mapping(row).get("route")), mapping(row)) for row in served or []]
    )
    lines = []
    for name, row in rows:
        errors = f", {number(row['errors'])} errors" if row.get("errors") else ""
        lines.append(f"{name} {number(row.get('requests'))}{errors}")
        if others := mapping(row.get("reasons")).get("other_api"):
            lines.append(f"  {number(others)} of them embeddings or legacy completions")
        lines.append(f"  {number(row.get('p50_ms'))}/{number(row.get('p95_ms'))} ms")
    return lines


def _spent(task: Mapping[str, Any], *, detailed: bool = False) -> list[str]:
    """Tokens and money by purpose, and what the student saved."""
    tokens, money = mapping(task.get("tokens")), dict(mapping(task.get("cost_usd")))
    purposes = mapping(money.pop("purposes", None))
    lines = []
    for purpose in dict.fromkeys([*tokens, *money]):
        price = _dollars(money.get(purpose))
        if purpose in tokens:
            lines.append(f"{purpose} {number(_token_sum(tokens[purpose]))}")
            lines += [f"  {price}"] if purpose in money else []
        else:
            lines.append(f"{purpose} {price}")
    if detailed:
        lines += [f"distilling, {name}: {_dollars(cost)}" for name, cost in purposes.items()]
    return lines


def _dollars(amount: Any) -> str:
    return f"${amount:.4f}" if isinstance(amount, int | float) else "price unknown"


def _token_sum(spent: Any) -> float | None:
    """Input and output tokens together, however deep they are sorted by purpose."""
    if isinstance(spent, Mapping):
        counts = {k: v for k, v in spent.items() if k != "calls"}
        return sum(_token_sum(value) or 0 for value in counts.values())
    return spent if isinstance(spent, int | float) else None


def _whole_certificate(task: Mapping[str, Any]) -> list[str]:
    """Every number of it, and of its slices those that lie below their floor."""
    found = mapping(task.get("certificate"))
    lines = student.judged(task) + _all_of(found, without=("slices", "ceiling", "judge"))
    slices = [mapping(s) for s in found.get("slices") or []]
    if slices:
        lines.append(f"slices: {len(slices)}, {sum(bool(s.get('below')) for s in slices)} below")
        lines += [f"  {text(s)}" for s in slices if s.get("below")]
    return lines


def _all_of(record: Any, *, without: Sequence[str] = ()) -> list[str]:
    found = mapping(record)
    return [
        f"{name}: {when(value) if name == 'at' else text(value)}"
        for name, value in found.items()
        if name not in without
    ]


def _tasks(status: Any) -> list[Mapping[str, Any]]:
    found = status.get("tasks", []) if isinstance(status, Mapping) else status
    values: Iterable[Any] = found.values() if isinstance(found, Mapping) else found or []
    return [task for task in values if isinstance(task, Mapping)]
