"""The status as a table: one row for each task, or every number of one task.

Every field is optional, so that the answer of an older or newer server can be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.status import student
from cli.status.wording import NOTHING, mapping, number, percent, proven, seconds, text, when
from store.jsontext import JsonMapping

Line = str | Text
# rows that are left out when they are empty
OPTIONAL = (
    "notice",
    "promise",
    "student",
    "detectors",
    "audits",
    "labels",
    "prompts",
    "history",
)


def render_status(status: Any) -> RenderableType:
    """All tasks as one table, a row for each, then notices and faults of the server itself."""
    tasks = _tasks(status)
    parts: list[RenderableType] = [_overview(tasks)] if tasks else [_no_tasks()]
    for task in tasks:
        for line in student.notices(task):
            parts.append(Text(f"{text(task.get('task'))}: ", style=line.style).append_text(line))
    server = mapping(status)
    store = mapping(server.get("store"))
    if store.get("ok") is False:
        parts.append(Text(f"store: {store.get('error')}", style="red"))
    if store.get("damaged"):
        parts.append(Text(f"journal lines that could not be read: {store['damaged']}"))
    proxies = mapping(server.get("proxies"))
    if proxies and proxies.get("current") != proxies.get("workers"):
        current, workers = number(proxies.get("current")), number(proxies.get("workers"))
        parts.append(
            Text(f"routes: {current} of {workers} workers have the last ones", style="yellow")
        )
    if store.get("set_aside"):
        parts.append(Text(f"journal: {store['set_aside']} files were set aside in journal/damaged"))
    for entry in store.get("skipped") or []:
        parts.append(Text(f"journal: cannot be collected: {entry}", style="red"))
    if store.get("not_kept"):
        parts.append(Text(f"copies of the journal: {store['not_kept']}", style="yellow"))
    if store.get("forgotten"):
        parts.append(
            Text(f"journal lines dropped because they were forgotten: {store['forgotten']}")
        )
    if store.get("forgetting"):
        parts.append(Text(f"deletions in progress: {store['forgetting']}", style="yellow"))
    students = mapping(server.get("students"))
    if students:
        parts.append(Text("students: " + ", ".join(f"{k} {v}" for k, v in students.items())))
    return Group(*parts)


def render_task(task: JsonMapping) -> RenderableType:
    """Everything about one task, a line for each number."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, lines in (
        ("task", [text(task.get("task"))]),
        ("notice", student.notices(task)),
        ("promise", [str(task["promise"])] if task.get("promise") else []),
        ("student", student.progress_lines(task)),
        ("detectors", student.detector_lines(task)),
        ("audits", student.audit_lines(task)),
        ("traces", [number(task.get("traces")), *_new_traces(task)]),
        ("due", _due(task)),
        ("running", _stage(task)),
        ("examples", _examples(task)),
        ("last run", _last_run(task, detailed=True)),
        ("rows", _chosen(task)),
        ("certificate", _whole_certificate(task)),
        ("labels", student.label_lines(task)),
        ("prompts", student.prompt_lines(task)),
        ("route", _all_of(task.get("route"), without=("templates",))),
        ("served", _served(task)),
        ("tokens, money", _spent(task, detailed=True)),
        ("history", student.history_lines(task)),
    ):
        if lines or name not in OPTIONAL:
            table.add_row(name, _cell(lines))
    return table


def _chosen(task: JsonMapping) -> list[Line]:
    """What the last run took of the traffic, and what it left out."""
    chosen = mapping(task.get("chosen"))
    if not chosen:
        return []
    rows, groups = mapping(chosen.get("rows")), mapping(chosen.get("groups"))
    lines: list[Line] = [
        ", ".join(
            f"{name}: {number(count)}"
            + (f" in {number(groups[name])} groups" if groups.get(name, count) != count else "")
            for name, count in rows.items()
        )
    ]
    if left_out := mapping(chosen.get("left_out")):
        counted = ", ".join(f"{number(n)} {reason}" for reason, n in left_out.items())
        lines.append(f"left out: {counted}")
    if snapshots := chosen.get("snapshots"):
        others = ", ".join(chosen.get("other_snapshots") or [])
        former = f"; earlier, and not counted: {others}" if others else ""
        lines.append(f"the teacher's snapshots: {', '.join(snapshots)}{former}")
    return lines


def _overview(tasks: list[JsonMapping]) -> Table:
    table = Table(show_lines=True)
    for title in ("task", "run", "route", "answers\np50/p95 ms", "tokens\nUS dollars"):
        table.add_column(title, overflow="fold")
    for task in tasks:
        cells: tuple[Sequence[Line], ...] = (
            [text(task.get("task")), f"{number(task.get('traces'))} traces"],
            (_stage(task) or _last_run(task) or _due(task)) + _examples(task),
            [*student.badges(task), *_route(task), *student.step_lines(task), *_certificate(task)],
            _served(task),
            _spent(task),
        )
        table.add_row(*map(_cell, cells))
    return table


def _cell(lines: Sequence[Line]) -> Text:
    return Text("\n").join(Text(x) if isinstance(x, str) else x for x in lines or [NOTHING])


def _no_tasks() -> Text:
    return Text(
        "No request had a task yet. Tag requests with the header X-Understudy-Task, "
        'with metadata {"task": …}, or by the key\'s own task.'
    )


def _stage(task: JsonMapping) -> list[str]:
    stage = mapping(task.get("stage"))
    if not stage:
        return []
    done, total = stage.get("done"), stage.get("total")
    progress = f" {number(done)} of {number(total)}" if total else ""
    lines = [f"{text(stage.get('stage'))}{progress}, {seconds(stage.get('seconds'))}"]
    if stage.get("note"):
        lines.append(str(stage["note"]))
    return lines


def _examples(task: JsonMapping) -> list[str]:
    lines = []
    for origin, counts in mapping(task.get("examples")).items():
        rejected = mapping(counts).get("rejected")
        rejections = f", {number(rejected)} rejected" if rejected else ""
        lines.append(f"{number(mapping(counts).get('kept'))} {origin}{rejections}")
    return lines


def _new_traces(task: JsonMapping) -> list[str]:
    return [f"{number(task['new_traces'])} new"] if task.get("new_traces") is not None else []


def _due(task: JsonMapping) -> list[str]:
    return [str(task["due"])] if task.get("due") else []


def _last_run(task: JsonMapping, *, detailed: bool = False) -> list[str]:
    run = mapping(task.get("last_run"))
    if not run:
        return []
    lines = [text(run.get("state"))]
    if run.get("reason"):
        lines.append(str(run["reason"]))
    if detailed:
        lines.append(f"run {text(run.get('run_id'))}")
        stages = mapping(run.get("stages"))
        lines += [f"{name}: {seconds(duration)}" for name, duration in stages.items()]
    return lines


def _certificate(task: JsonMapping) -> list[str]:
    certificate = mapping(task.get("certificate"))
    if not certificate:
        return []
    return [f"proven {proven(certificate)}", f"coverage {percent(certificate.get('coverage'))}"]


def _route(task: JsonMapping) -> list[str]:
    route = mapping(task.get("route"))
    return [f"{text(route.get('target'))}: {text(route.get('reason'))}"] if route else []


def _served(task: JsonMapping) -> list[str]:
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


def _spent(task: JsonMapping, *, detailed: bool = False) -> list[str]:
    """Tokens and US dollars by purpose, and what the student saved."""
    tokens, money = mapping(task.get("tokens")), dict(mapping(task.get("cost_usd")))
    purposes = mapping(money.pop("purposes", None))
    lines = []
    for purpose in dict.fromkeys([*tokens, *money]):
        price = _dollars(money.get(purpose))
        if purpose in tokens:
            lines.append(f"{purpose} {number(_token_sum(tokens[purpose]))}")
            if estimated := mapping(tokens[purpose]).get("estimated"):
                lines.append(f"  {number(estimated)} of them estimated")
            lines += [f"  {price}"] if purpose in money else []
        else:
            lines.append(f"{purpose} {price}")
    if detailed:
        lines += [f"distilling, {name}: {_dollars(cost)}" for name, cost in purposes.items()]
    return lines


def _dollars(amount: Any) -> str:
    return f"${amount:.4f}" if isinstance(amount, int | float) else "price unknown"


def _token_sum(spent: Any) -> float | None:
    """Input plus output tokens, summed over nested purposes."""
    if isinstance(spent, Mapping):
        counts = {k: v for k, v in spent.items() if k not in ("calls", "estimated")}
        return sum(_token_sum(value) or 0 for value in counts.values())
    return spent if isinstance(spent, int | float) else None


def _whole_certificate(task: JsonMapping) -> list[str]:
    """Every number of the certificate, and those of its slices that lie below their floor."""
    certificate = mapping(task.get("certificate"))
    lines = (
        student.certificate_basis_lines(task)
        + student.race_lines(task)
        + _all_of(
            certificate,
            without=("slices", "recalls", "unproven_labels", "ceiling", "judge", "race"),
        )
    )
    slices = [mapping(s) for s in certificate.get("slices") or []]
    if slices:
        lines.append(f"slices: {len(slices)}, {sum(bool(s.get('below')) for s in slices)} below")
        lines += [f"  {text(s)}" for s in slices if s.get("below")]
    return lines


def _all_of(record: Any, *, without: Sequence[str] = ()) -> list[str]:
    return [
        f"{name}: {when(value) if name == 'at' else text(value)}"
        for name, value in mapping(record).items()
        if name not in without
    ]


def _tasks(status: Any) -> list[JsonMapping]:
    tasks = status.get("tasks", []) if isinstance(status, Mapping) else status
    values: Iterable[Any] = tasks.values() if isinstance(tasks, Mapping) else tasks or []
    return [task for task in values if isinstance(task, Mapping)]
