"""The lines of a status about one task's student: badges, notices, progress, detectors, history."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from cli.status.wording import mapping, number, percent, text, when
from store.jsontext import JsonMapping

SUSPICIOUS_LEVEL = 0.5  # level of a detector from which the overview names it; 1 is the alarm


def badges(task: JsonMapping) -> list[Text]:
    """The notices of a task, in a few words each."""
    labels = {
        "forced": Text("FORCED", style="bold red"),
        "demotion": Text("demoted", style="red"),
        "unlearned": Text("learned from what was forgotten", style="yellow"),
        "paused": Text("paused", style="yellow"),
    }
    return [label for name, label in labels.items() if task.get(name)]


def notices(task: JsonMapping) -> list[Text]:
    """What needs attention: a forced student, a demotion, a pause, a low teacher ceiling."""
    lines = []
    forced, demoted = mapping(task.get("forced")), mapping(task.get("demotion"))
    if forced:
        event = f"FORCED past the gate by {text(forced.get('actor'))}, {when(forced.get('at'))}"
        lines.append(Text(_with_reason(event, forced), style="bold red"))
    if demoted:
        event = f"demoted by {text(demoted.get('actor'))}, {when(demoted.get('at'))}"
        lines.append(Text(_with_reason(event, demoted), style="red"))
    forgotten = mapping(task.get("unlearned"))
    if forgotten:
        lines.append(Text(f"the student {text(forgotten.get('says'))}", style="yellow"))
    paused = mapping(task.get("paused"))
    if paused:
        event = f"paused by {text(paused.get('by'))}"
        lines.append(Text(_with_reason(event, paused), style="yellow"))
    hint = mapping(task.get("ceiling")).get("hint")
    if hint:
        lines.append(Text(f"the teacher's self-consistency: {hint}", style="yellow"))
    return lines


def step_lines(task: JsonMapping) -> list[str]:
    """The student's step and its evidence, in two or three short lines."""
    live = mapping(task.get("live"))
    if not live:
        return []
    share = f" {percent(live.get('share'))}" if live.get("share") else ""
    next_share = live.get("next_share")
    lines = [
        f"{text(live.get('step'))}{share}{f', then {percent(next_share)}' if next_share else ''}"
    ]
    needed = f"/{number(live.get('groups_needed'))}" if live.get("step") != "live" else ""
    groups, rows = live.get("groups"), live.get("rows")
    noun = "comparisons" if groups == rows else f"groups of {number(rows)} comparisons"
    lines.append(f"{number(groups)}{needed} {noun}, {number(live.get('groups_agreed'))} agree")
    level = max(map(_level, mapping(live.get("suspicion")).values()), default=0.0)
    if level >= SUSPICIOUS_LEVEL:
        lines.append(f"alarm level {percent(level)}")
    return lines


def progress_lines(task: JsonMapping) -> list[str]:
    """The student's step with all of its live evidence."""
    live = mapping(task.get("live"))
    if not live:
        return []
    lines = [*step_lines(task)[:2], text(live.get("reason"))]
    if live.get("waits_for"):
        lines.append(f"waiting: {live['waits_for']}")
    lines.append(f"student {text(live.get('student_id'))}, since {when(live.get('promoted_at'))}")
    for kind, value in mapping(live.get("comparisons")).items():
        n, servable, agreed = (mapping(value).get(k) for k in ("n", "servable", "agreed"))
        lines.append(
            f"{kind}: {number(n)} compared, {number(servable)} servable, {number(agreed)} agree"
        )
    if live.get("shed"):
        lines.append(f"shadow: {number(live['shed'])} not asked in time")
    return lines


def audit_lines(task: JsonMapping) -> list[str]:
    """The share of the served requests that is audited, and the audits not done."""
    audits = mapping(mapping(task.get("live")).get("audits"))
    if not audits:
        return []
    rate, pending = percent(audits.get("rate")), number(audits.get("owed"))
    lines = [f"{rate} of the served requests, {pending} pending"]
    if audits.get("dropped"):
        lines.append(f"{number(audits['dropped'])} dropped: {text(audits.get('dropped_for'))}")
    return lines


def detector_lines(task: JsonMapping) -> list[str]:
    """Each detector, and how close it is to its alarm."""
    lines = []
    for name, value in mapping(mapping(task.get("live")).get("suspicion")).items():
        detector = mapping(value)
        lines.append(
            f"{name}: {number(detector.get('bad'))} of {number(detector.get('n'))}, "
            f"{percent(detector.get('tolerated'))} tolerated; "
            f"alarm level {percent(detector.get('level'))}, demotes at 100%"
        )
    return lines


def certificate_basis_lines(task: JsonMapping) -> list[str]:
    """What a certificate is based on: the error budget, the teacher's ceiling, the judge."""
    lines = []
    attempts = mapping(task.get("attempts"))
    if attempts:
        lines.append(
            f"attempt {number(attempts.get('attempt'))}: error budget "
            f"{percent(attempts.get('alpha'))}; {percent(attempts.get('alpha_spent'))} of "
            f"{percent(attempts.get('alpha_total'))} spent"
        )
    ceiling = mapping(task.get("ceiling"))
    if ceiling:
        lines.append(
            f"the teacher agrees with itself on {percent(ceiling.get('share'))} "
            f"({percent(ceiling.get('low'))} to {percent(ceiling.get('high'))}, "
            f"n {number(ceiling.get('n'))})"
        )
    judge = mapping(task.get("judge"))
    if judge:
        lines.append(f"judge: {text(judge.get('reason'))}")
    if judge.get("corrected"):
        names = ("agreement", "sensitivity", "specificity", "bias")
        lines.append("  " + ", ".join(f"{name} {number(judge.get(name))}" for name in names))
    return lines


def race_lines(task: JsonMapping) -> list[str]:
    """The student kinds of the last run: what each scored, took and costs, and why one won."""
    lines = []
    for one in map(mapping, task.get("race") or []):
        won = " won" if one.get("won") else ""
        line = f"kind {text(one.get('kind'))}{won}: {text(one.get('reason') or 'trained')}"
        if one.get("coverage") is not None:
            line += (
                f"; coverage {percent(one.get('coverage'))} expected, "
                f"{percent(one.get('agreement'))} of {number(one.get('rows'))} calibration rows "
                f"agree, {number(one.get('latency_ms'))} ms an answer"
            )
        if one.get("seconds"):
            line += (
                f"; trained in {number(one.get('seconds'))} s with "
                f"{number(one.get('memory_mb'))} MB, {number(one.get('disk_mb'))} MB on disk"
            )
        lines.append(line)
    return lines


def label_lines(task: JsonMapping) -> list[str]:
    """The labels whose recall is not proven, and each protected one."""
    labels = mapping(task.get("labels"))
    if not labels:
        return []
    floor, unproven = percent(labels.get("floor")), labels.get("unproven_labels") or []
    lines = []
    for one in map(mapping, labels.get("protected") or []):
        proof = "proven" if one.get("proven") else "not proven"
        lines.append(
            f"protected {text(one.get('name'))}: {number(one.get('agreed'))} of "
            f"{number(one.get('n'))} agree, recall at least {percent(one.get('low'))}, {proof}"
        )
    lines.append(
        f"a recall of {floor} is not proven for {number(labels.get('unproven'))} of "
        f"{number(labels.get('labels'))} labels"
    )
    if unproven:
        more = ", …" if len(unproven) < (labels.get("unproven") or 0) else ""
        lines.append(f"  {text(unproven)}{more}")
    return lines


def prompt_lines(task: JsonMapping) -> list[str]:
    """The prompts that vary, as templates."""
    return [
        f"varies, treated as input ({number(mapping(prompt).get('distinct'))} seen): "
        f"{text(mapping(prompt).get('skeleton'))}"
        for prompt in task.get("varying_prompts") or []
    ]


def history_lines(task: JsonMapping) -> list[str]:
    """The last entries of the task's history, newest first."""
    lines = []
    for entry in map(mapping, task.get("history") or []):
        share = f" {percent(entry['share'])}" if entry.get("share") else ""
        forced = ", forced" if entry.get("forced") else ""
        state, actor = text(entry.get("state")), text(entry.get("actor"))
        event = f"{when(entry.get('at'))} {state}{share} by {actor}{forced}"
        lines.append(_with_reason(event, entry))
    return lines


def _with_reason(event: str, record: JsonMapping) -> str:
    return f"{event}: {record['reason']}" if record.get("reason") else event


def _level(detector: Any) -> float:
    level = mapping(detector).get("level")
    return float(level) if isinstance(level, int | float) else 0.0
