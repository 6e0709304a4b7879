"""The demo's output in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.drive.driver import SentRequest, Status
from demo.drive.ramp import step_of
from store.jsontext import JsonMapping

if TYPE_CHECKING:
    from demo.journey.journey import JourneyPlan

_RAMP_DONE = {"teacher": 0.0, "shadow": 0.1, "live": 1.0}  # how far a step is


class View:
    """Writes to the terminal: on standard error when standard output is for JSON."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._console = Console(stderr=to_stderr, highlight=False)
        self._bars: Progress | None = None
        self._bar: dict[str, TaskID] = {}

    def started(self, url: str, plan: JourneyPlan) -> None:
        """The product answers."""
        self._console.print("[bold]Understudy, the demo[/bold]")
        self._console.print(f"  proxy    {url}/v1")
        self._console.print(
            f"  teacher  a stand-in, rules that answer after {plan.teacher_latency_s * 1000:g} ms"
        )
        self._console.print(
            f"  price    ${plan.price.input * 1e6:g} / ${plan.price.output * 1e6:g} "
            "a million tokens in / out"
        )
        self._console.print(f"  status   {url}/distill\n")

    @contextmanager
    def sending(self, name: str, total: int) -> Iterator[Callable[[SentRequest], None]]:
        """A bar for requests that are being sent."""
        with self._progress() as bars:
            bar = bars.add_task(name, total=total, note="requests")

            def done(exchange: SentRequest) -> None:
                note = "requests" if exchange.error is None else f"[red]{exchange.error}[/red]"
                bars.update(bar, advance=1, note=note)

            yield done

    @contextmanager
    def runs(self, names: Sequence[str]) -> Iterator[None]:
        """A bar for each task's run."""
        with self._progress() as bars:
            self._bars = bars
            self._bar = {n: bars.add_task(n, total=1, note="waits for its turn") for n in names}
            yield
        self._bars = None

    def standing(self, name: str, status: Status) -> None:
        """Where a task's run is now."""
        stage = status["stage"]
        if self._bars is not None and stage:
            self._bars.update(
                self._bar[name],
                completed=stage["done"],
                total=stage["total"] or 1,
                note=f"{stage['stage']}: {stage['note']}",
            )

    def judged(self, name: str, status: Status) -> None:
        """A run has ended: its numbers."""
        last = status["last_run"]
        if self._bars is not None:
            self._bars.update(self._bar[name], completed=1, total=1, note=last["state"])
            self._bars.console.print(_run_table(name, status))

    @contextmanager
    def ramp(self, names: Sequence[str]) -> Iterator[Callable[[str, Status], None]]:
        """A bar for each student on its way from shadow to live."""
        with self._progress() as bars:
            tasks = {n: bars.add_task(f"{n}, ramp", total=1, note="shadow") for n in names}
            shown = dict.fromkeys(names, "")

            def watch(name: str, status: Status) -> None:
                route, step = status["route"], step_of(status)
                title = f"{step} {route.get('share', 0):.0%}" if step == "canary" else step
                if title != shown[name]:
                    shown[name] = title
                    bars.console.print(f"{name}: [bold]{title}[/bold]")
                note = (status.get("rollout") or {}).get("reason", "")
                done = _RAMP_DONE.get(step, 0.0) if step != "canary" else 0.3 + 0.7 * route["share"]
                bars.update(tasks[name], completed=done, note=f"{title}; {note}")

            yield watch

    @contextmanager
    def damaged(self, name: str) -> Iterator[Callable[[Status], None]]:
        """Progress of the damaged student until it is demoted."""
        self._console.print(
            f"\nThe weights of [bold]{name}[/bold]'s student are shuffled on disk, and the product "
            "is started again."
        )
        with self._progress() as bars:
            bar = bars.add_task(f"{name}, damaged", total=1, note="")

            def watch(status: Status) -> None:
                answers = {n: s["requests"] for n, s in status["served"].items()}
                counts = ", ".join(f"{n} {count}" for n, count in answers.items())
                found = status["route"]["reason"] == "demoted"
                note = f"{status['route']['reason']}; answered in all: {counts}"
                bars.update(bar, completed=int(found), note=note)

            yield watch

    def finished(self, report: JsonMapping) -> None:
        """Who answered the fresh traffic, and how well."""
        table = Table(title="Fresh traffic", title_justify="left", title_style="bold")
        heads = ("student", "agrees", "all agree", "ms", "fallback ms", "errors")
        table.add_column("task", no_wrap=True)
        for head in heads:
            table.add_column(head, justify="right")
        for name, task in report["tasks"].items():
            fresh = task["fresh"]
            table.add_row(
                name,
                f"{fresh['student_share']:.0%}",
                _share(fresh["student_agreement"]),
                _share(fresh["agreement"]),
                *(_median(fresh["by_route"].get(route)) for route in ("student", "fallback")),
                str(fresh["errors"]),
            )
        self._console.print(table)
        damaged = report["sabotage"]
        if damaged:
            self._console.print(
                f"damaged student of {damaged['task']}: "
                f"{(damaged['demotion'] or {}).get('reason', 'not demoted')}; "
                f"{damaged['requests']} requests until then, {damaged['wrong']} wrong answers and "
                f"{damaged['errors']} errors for clients"
            )
        cost = report["cost_usd"]
        self._console.print(
            f"teacher for traffic ${cost['traffic']:.4f}, for distilling "
            f"${cost['distilling']:.4f}, saved on the fresh traffic ${cost['saved']:.4f}; "
            f"{report['seconds']:.0f} s in all"
        )

    def verdict(self, faults: Sequence[str]) -> None:
        """Whether the demo went as promised."""
        for fault in faults:
            self._console.print(f"[red]✗[/red] {fault}")
        if not faults:
            self._console.print(
                "[green]✓[/green] every task was promoted and kept its promise; "
                "the damaged student was detected"
            )

    def broke(self, message: str) -> None:
        """The product stands still."""
        self._console.print(f"[red]{message}[/red]", markup=True)

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )


def _run_table(name: str, status: Status) -> Table:
    last, examples = status["last_run"], status["examples"]
    detail, certificate = last["detail"], status["certificate"]
    table = Table(title=f"{name}: {last['state']}", title_justify="left", show_header=False)
    synthetic = examples.get("synthetic", {"kept": 0, "rejected": 0, "reasons": {}})
    rejected = ", ".join(f"{n} {reason}" for reason, n in synthetic["reasons"].items())
    table.add_row("traces", str(status["traces"]))
    table.add_row("synthetic", f"{synthetic['kept']} kept; rejected: {rejected or 'none'}")
    for entry in status["race"]:
        table.add_row(f"student kind {entry['kind']}", _raced(entry))
    for trained_on, numbers in (detail.get("trained") or {}).get("candidates", {}).items():
        if "val_losses" not in numbers:  # of a kind that has none
            continue
        losses = numbers["val_losses"]
        table.add_row(
            f"trained on {trained_on}",
            f"{numbers['rows']} rows, validation loss {losses[0][1]:.3f} → "
            f"{numbers['best_val_loss']:.3f}, agrees with {numbers['valid_agreement']:.1%} "
            "of the calibration rows",
        )
    if certificate:
        table.add_row(
            "held-out",
            f"{certificate['agreed']:g} of {certificate['n']} agree, lower bound "
            f"{certificate['lower_bound']:.3f} at {certificate['confidence_level']:.0%}, "
            f"needs {certificate['threshold']:g}; coverage {certificate['coverage']:.0%}",
        )
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in last["stages"].items())
    table.add_row("took", stages)
    table.add_row("verdict", last["reason"])
    return table


def _raced(entry: JsonMapping) -> str:
    """What a kind scored, took and costs, and why it won or was not trained."""
    parts = ["won" if entry["won"] else "", entry["reason"]]
    if entry["coverage"] is not None:
        parts.append(
            f"agrees with {entry['agreement']:.1%} of {entry['rows']} calibration rows, "
            f"{entry['coverage']:.0%} of the requests expected"
        )
    if entry["seconds"]:
        parts.append(f"trained in {entry['seconds']:.0f} s, {entry['disk_mb']:.1f} MB")
    return "; ".join(part for part in parts if part)


def _median(times: JsonMapping | None) -> str:
    return "-" if times is None else f"{times['p50_ms']:.0f}"


def _share(section: JsonMapping) -> str:
    return "-" if section["share"] is None else f"{section['agreed']} of {section['n']}"
