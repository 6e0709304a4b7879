"""A backtest's progress bars, and its report for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.backtest.report import Report
from distill.run import progress
from store.jsontext import JsonMapping, JsonObject


@contextmanager
def bars(console: Console) -> Iterator[progress.Progress]:
    """A callback for the stages, each of which has its bar on this console."""
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as shown:
        stages: JsonObject = {}

        def tell(stage: str, done: float, total: float, note: str) -> None:
            for name, number in stages.items():
                if name != stage:
                    shown.stop_task(number)
            if stage not in stages:
                stages[stage] = shown.add_task(stage, note="")
            shown.update(stages[stage], completed=int(done), total=int(total), note=note)

        yield tell


def silence(stage: str, done: float, total: float, note: str) -> None:
    """A callback that shows nothing."""


def show_report(report: Report, console: Console) -> None:
    """The report for people; `--json` has all of it."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in _lines(report):
        table.add_row(name, text)
    console.print(table)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    rows, test, money = report["rows"], report["test"], report["savings"]
    yield f"task {report['task']}", f"{report['result']}: {report['reason']}"
    yield (
        "rows",
        (
            f"{rows['traffic']} traffic, {rows['pool']} pool, {rows['test']} test; "
            f"{rows['duplicates']} repeat an earlier row, "
            f"{rows['conflicts']} of them with another answer"
        ),
    )
    for purpose, tally in report["teacher"]["by_purpose"].items():
        if tally["requests"]:
            yield (
                f"teacher, {purpose}",
                (
                    f"{tally['requests']} requests, {tally['input_tokens']:,} tokens in, "
                    f"{tally['output_tokens']:,} out"
                ),
            )
    for origin, counts in report["examples"].items():
        why = ", ".join(f"{n} {reason}" for reason, n in counts["reasons"].items())
        yield (
            f"examples, {origin}",
            (f"{counts['kept']} kept, {counts['rejected']} rejected{f' ({why})' if why else ''}"),
        )
    yield "seconds", ", ".join(f"{name} {s:.1f}" for name, s in report["seconds"].items())
    if certificate := report["certificate"]:
        name = "certificate" if certificate["passed"] else "no certificate"
        yield name, _certificate(certificate)
    student = test["answered_by_student"]
    yield (
        "test rows",
        (
            f"{test['n']}: the student answered {student['n']} ({student['share']:.1%}), "
            f"{test['errors']} errors"
        ),
    )
    yield (
        "agreement",
        (
            f"of the student's answers {_share(test['agreement_of_student'])}; "
            f"of all {_share(test['agreement_all'])}"
        ),
    )
    if test["certificate_contradicted"]:
        yield "", "the test rows contradict the certificate: what was served lies below it"
    for section in report["thresholds"]:
        yield f"at {section['threshold']:g}", _threshold(section)
    for route, took in test["by_route"].items():
        yield (
            f"latency, {route}",
            (f"{took['n']} requests, p50 {took['p50_ms']:.0f} ms, p95 {took['p95_ms']:.0f} ms"),
        )
    pays, price = money["pays_off_after"], money["price"]
    yield (
        "savings",
        (
            f"{money['saved_share']:.1%} of ${money['teacher_usd_without']:.4f} for the test rows "
            "at "
            f"${price['input_usd_per_million']:g} / ${price['output_usd_per_million']:g} "
            "per million tokens in / out; distilling cost "
            f"${money['distilling_usd']:.4f}"
            + (f", paid off after {pays} such requests" if pays is not None else "")
        ),
    )


def _certificate(certificate: JsonMapping) -> str:
    cutoff = certificate["cutoff"]
    return (
        f"{certificate['agreed']:g} of {certificate['n']} held-out groups agree, "
        f"at least {certificate['lower_bound']:.4f} at {certificate['confidence_level']:.0%} "
        f"confidence (threshold {certificate['threshold']:g}); "
        f"coverage {certificate['coverage']:.1%}"
        + (f" above cutoff {cutoff:.4g}" if cutoff is not None else "")
    )


def _threshold(section: JsonMapping) -> str:
    certified = section["certified"]
    if not section["passed"]:
        return f"no certificate: {section['reason']}"
    after, confirmed = section["confirmed_after"], section["confirmed"]
    against = "; the test rows are other traffic: they contradict it" * section["contradicted"]
    live = (
        f"confirmed by the first {after} rows, then {confirmed['answered']:.1%} answered, "
        f"{_share(confirmed['agreement_of_student'])} of them agree"
        if after is not None
        else "live rows do not confirm it, so the teacher would go on"
    )
    return (
        f"certified coverage {certified['coverage']:.1%}, at least "
        f"{certified['lower_bound']:.4f}; of the test rows {section['answered']:.1%} answered, "
        f"{_share(section['agreement_of_student'])} of them agree{against}; {live}"
    )


def _share(section: JsonMapping) -> str:
    if section["share"] is None:
        return "none"
    return f"{section['share']:.1%} [{section['low']:.1%}, {section['high']:.1%}]"
