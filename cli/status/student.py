"""A task's student in the status: what is loud about it, its step, what speaks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from cli.status.wording import mapping, number, percent, text, when

SUSPICIOUS = 0.5  # level of a detector from which the overview names it; it demotes at 1

Task = Mapping[str, Any]


def loud(task: Task) -> list[Text]:
    """The same as `notices`, in a word each."""
    words = {
        "forced": Text("FORCED", style="bold red"),
        "demotion": Text("demoted", style="red"),
        "unlearned": Text("learned from what was forgotten", style="yellow"),
        "paused": Text("paused", style="yellow"),
    }
    return [word for name, word in words.items() if task.get(name)]


def notices(task: Task) -> list[Text]:
    """What nobody may overlook: a forced student, a pause, a demotion, a low ceiling."""
    lines = []
    forced, demoted = mapping(task.get("forced")), mapping(task.get("demotion"))
    if forced:
        said = f"FORCED past the gate by {text(forced.get('actor'))}, {when(forced.get('at'))}"
        lines.append(Text(_because(said, forced), style="bold red"))
    if demoted:
        said = f"demoted by {text(demoted.get('actor'))}, {when(demoted.get('at'))}"
        lines.append(Text(_because(said, demoted), style="red"))
    unlearned = mapping(task.get("unlearned"))
    if unlearned:
        lines.append(Text(f"the student {text(unlearned.get('says'))}", style="yellow"))
    paused = mapping(task.get("paused"))
    if paused:
        lines.append(Text(_because(f"paused by {text(paused.get('by'))}", paused), style="yellow"))
    hint = mapping(task.get("ceiling")).get("hint")
    if hint:
        lines.append(Text(f"the teacher's own agreement: {hint}", style="yellow"))
    return lines


def step(task: Task) -> list[str]:
    """Where the student is on its way, in two or three short lines."""
    live = mapping(task.get("live"))
    if not live:
        return []
    share = f" {percent(live.get('share'))}" if live.get("share") else ""
    following = live.get("next_share")
    lines = [
        f"{text(live.get('step'))}{share}{f', then {percent(following)}' if following else ''}"
    ]
    needed = f"/{number(live.get('rows_needed'))}" if live.get("step") != "live" else ""
    agreed = number(live.get("rows_agreed"))
    lines.append(f"{number(live.get('rows'))}{needed} rows, {agreed} agreed")
    worst = max(mapping(live.get("suspicion")).values(), key=_level, default=None)
    if _level(worst) >= SUSPICIOUS:
        lines.append(f"suspicion {percent(_level(worst))}")
    return lines


def way(task: Task) -> list[str]:
    """All that was found out live."""
    live = mapping(task.get("live"))
    if not live:
        return []
    lines = [*step(task)[:2], text(live.get("reason"))]
    if live.get("waits_for"):
        lines.append(f"waits: {live['waits_for']}")
    lines.append(f"student {text(live.get('student_id'))}, since {when(live.get('promoted_at'))}")
    for kind, found in mapping(live.get("comparisons")).items():
        n, servable, agreed = (mapping(found).get(k) for k in ("n", "servable", "agreed"))
        lines.append(
            f"{kind}: {number(n)} compared, {number(servable)} servable, {number(agreed)} agreed"
        )
    if live.get("shed"):
        lines.append(f"shadow: {number(live['shed'])} shed")
    return lines


def audits(task: Task) -> list[str]:
    """How much of what the student serves is checked."""
    found = mapping(mapping(task.get("live")).get("audits"))
    if not found:
        return []
    lines = [f"{percent(found.get('rate'))} of what it serves, {number(found.get('owed'))} owed"]
    if found.get("dropped"):
        lines.append(f"{number(found['dropped'])} dropped: {text(found.get('dropped_for'))}")
    return lines


def suspicion(task: Task) -> list[str]:
    """Each detector: how far it is from demoting the student."""
    return [
        f"{name}: {number(mapping(found).get('bad'))} of {number(mapping(found).get('n'))}, "
        f"{percent(mapping(found).get('tolerated'))} tolerated; "
        f"level {percent(mapping(found).get('level'))}, demoted at 100%"
        for name, found in mapping(mapping(task.get("live")).get("suspicion")).items()
    ]


def judged(task: Task) -> list[str]:
    """The error budget, the teacher's ceiling and the judge: what a certificate rests on."""
    lines = []
    tried = mapping(task.get("attempts"))
    if tried:
        lines.append(
            f"attempt {number(tried.get('attempt'))}: may err at {percent(tried.get('alpha'))}; "
            f"{percent(tried.get('alpha_spent'))} of {percent(tried.get('alpha_total'))} spent"
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


def prompts(task: Task) -> list[str]:
    """The prompts that vary: what stays of each."""
    return [
        f"varies, treated as input ({number(mapping(p).get('distinct'))} seen): "
        f"{text(mapping(p).get('skeleton'))}"
        for p in task.get("varying_prompts") or []
    ]


def history(task: Task) -> list[str]:
    """The last turns of the route, newest first."""
    lines = []
    for turn in map(mapping, task.get("history") or []):
        share = f" {percent(turn['share'])}" if turn.get("share") else ""
        forced = ", forced" if turn.get("forced") else ""
        said = (
            f"{when(turn.get('at'))} {text(turn.get('state'))}{share} by {text(turn.get('actor'))}"
        )
        lines.append(_because(said + forced, turn))
    return lines


def _because(said: str, record: Mapping[str, Any]) -> str:
    return f"{said}: {record['reason']}" if record.get("reason") else said


def _level(detector: Any) -> float:
    level = mapping(detector).get("level")
    return float(level) if isinstance(level, int | float) else 0.0
