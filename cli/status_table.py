"""The status as a table: one row for each task, or every number of one task.

No field has to be there: the answer of an older or newer server is shown as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

NOTHING = "-"


def render_status(status: Any) -> RenderableType:
    """All tasks as one table, a row for each, and what is wrong with the server itself."""
    tasks = _tasks(status)
    parts: list[RenderableType] = [_overview(tasks)] if tasks else [_no_tasks()]
    whole = _mapping(status)
    store = _mapping(whole.get("store"))
    if store.get("ok") is False:
        parts.append(Text(f"store: {store.get('error')}", style="red"))
    if store.get("damaged"):
        parts.append(Text(f"journal lines that could not be read: {store['damaged']}"))
    students = _mapping(whole.get("students"))
    if students:
        parts.append(Text("students: " + ", ".join(f"{k} {v}" for k, v in students.items())))
    return Group(*parts)


def render_task(task: Mapping[str, Any]) -> RenderableType:
    """Everything about one task, a line for each number."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, lines in (
        ("task", [_text(task.get("task"))]),
        ("traces", [_number(task.get("traces")), *_new_traces(task)]),
        ("due", _due(task)),
        ("now", _stage(task)),
        ("examples", _examples(task)),
        ("last run", _last_run(task, detailed=True)),
        ("certificate", _all_of(task.get("certificate"))),
        ("route", _all_of(task.get("route"))),
        ("served", _served(task)),
        ("tokens, money", _spent(task)),
    ):
        table.add_row(name, Text("\n".join(lines) or NOTHING))
    return table


def _overview(tasks: list[Mapping[str, Any]]) -> Table:
    table = Table(show_lines=True)
    for title in ("task", "run", "route", "answers\np50/p95 ms", "tokens\nUS dollars"):
        table.add_column(title, overflow="fold")
    for task in tasks:
        cells = (
            [_text(task.get("task")), f"{_number(task.get('traces'))} traces"],
            (_stage(task) or _last_run(task) or _due(task)) + _examples(task),
            _route(task) + _certificate(task),
            _served(task),
            _spent(task),
        )
        table.add_row(*(Text("\n".join(lines) or NOTHING) for lines in cells))
    return table


def _no_tasks() -> Text:
    return Text(
        "No request had a task yet. Tag one with the header X-Understudy-Task, "
        'with metadata {"task": …}, or by the key\'s own task.'
    )


def _stage(task: Mapping[str, Any]) -> list[str]:
    stage = _mapping(task.get("stage"))
    if not stage:
        return []
    done, total = stage.get("done"), stage.get("total")
    how_far = f" {_number(done)} of {_number(total)}" if total else ""
    lines = [f"{_text(stage.get('stage'))}{how_far}, {_seconds(stage.get('seconds'))}"]
    if stage.get("note"):
        lines.append(str(stage["note"]))
    return lines


def _examples(task: Mapping[str, Any]) -> list[str]:
    lines = []
    for origin, counts in _mapping(task.get("examples")).items():
        rejected = _mapping(counts).get("rejected")
        without = f", {_number(rejected)} rejected" if rejected else ""
        lines.append(f"{_number(_mapping(counts).get('kept'))} {origin}{without}")
    return lines


def _new_traces(task: Mapping[str, Any]) -> list[str]:
    return [f"{_number(task['new_traces'])} new"] if task.get("new_traces") is not None else []


def _due(task: Mapping[str, Any]) -> list[str]:
    return [str(task["due"])] if task.get("due") else []


def _last_run(task: Mapping[str, Any], *, detailed: bool = False) -> list[str]:
    run = _mapping(task.get("last_run"))
    if not run:
        return []
    lines = [_text(run.get("state"))]
    if run.get("reason"):
        lines.append(str(run["reason"]))
    if detailed:
        lines.append(f"run {_text(run.get('run_id'))}")
        stages = _mapping(run.get("stages"))
        lines += [f"{name}: {_seconds(seconds)}" for name, seconds in stages.items()]
    return lines


def _certificate(task: Mapping[str, Any]) -> list[str]:
    found = _mapping(task.get("certificate"))
    if not found:
        return []
    bound, threshold = _number(found.get("lower_bound")), _number(found.get("threshold"))
    return [
        f"agrees {_number(found.get('score'))} (n {_number(found.get('n'))})",
        f"proven {bound}, wanted {threshold}",
        f"coverage {_number(found.get('coverage'))}",
    ]


def _route(task: Mapping[str, Any]) -> list[str]:
    route = _mapping(task.get("route"))
    return [f"{_text(route.get('target'))}: {_text(route.get('reason'))}"] if route else []


def _served(task: Mapping[str, Any]) -> list[str]:
    served = task.get("served")
    rows = (
        [(name, _mapping(row)) for name, row in served.items()]
        if isinstance(served, Mapping)
        else [(_text(_mapping(row).get("route")), _mapping(row)) for row in served or []]
    )
    lines = []
    for name, row in rows:
        errors = f", {_number(row['errors'])} errors" if row.get("errors") else ""
        lines.append(f"{name} {_number(row.get('requests'))}{errors}")
        lines.append(f"  {_number(row.get('p50_ms'))}/{_number(row.get('p95_ms'))} ms")
    return lines


def _spent(task: Mapping[str, Any]) -> list[str]:
    """Tokens and money by purpose, and what the student saved."""
    tokens, money = _mapping(task.get("tokens")), _mapping(task.get("cost_usd"))
    lines = []
    for purpose in dict.fromkeys([*tokens, *money]):
        amount = money.get(purpose)
        price = "price unknown" if amount is None else f"${amount:.4f}"
        if purpose in tokens:
            lines.append(f"{purpose} {_number(_token_sum(tokens[purpose]))} tokens")
            lines += [f"  {price}"] if purpose in money else []
        else:
            lines.append(f"{purpose} {price}")
    return lines


def _token_sum(spent: Any) -> float | None:
    """Input and output tokens together, however deep they are sorted by purpose."""
    if isinstance(spent, Mapping):
        counts = {k: v for k, v in spent.items() if k != "calls"}
        return sum(_token_sum(value) or 0 for value in counts.values())
    return spent if isinstance(spent, int | float) else None


def _all_of(record: Any) -> list[str]:
    return [f"{name}: {_text(value)}" for name, value in _mapping(record).items()]


def _tasks(status: Any) -> list[Mapping[str, Any]]:
    found = status.get("tasks", []) if isinstance(status, Mapping) else status
    values: Iterable[Any] = found.values() if isinstance(found, Mapping) else found or []
    return [task for task in values if isinstance(task, Mapping)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return NOTHING if value is None else str(value)


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return NOTHING
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _seconds(value: Any) -> str:
    if not isinstance(value, int | float):
        return NOTHING
    return f"{value:.1f} s" if value < 60 else f"{value // 60:.0f} min {value % 60:.0f} s"
