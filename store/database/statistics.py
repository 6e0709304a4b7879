"""Statistics of a task: requests by who answered, latencies, errors, tokens, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from store.database.database import Database
from store.settings.teachers import Price, price_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests that went one way: teacher, student or fallback."""

    requests: int
    errors: int
    p50_ms: Annotated[float | None, Field(description="until the whole answer")]
    p95_ms: float | None
    recent_requests: Annotated[int, Field(description="of the last hour alone, as the next two")]
    recent_p50_ms: float | None
    recent_p95_ms: float | None
    reasons: dict[str, int]  # the most common first


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """Tokens that were read and written in a number of calls."""

    calls: int
    input: int
    output: int
    estimated: Annotated[int, Field(description="of them, of answers that did not count")] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCount:
    """One kind of error that clients met."""

    status_code: int
    type: str
    requests: int


@dataclass(slots=True, kw_only=True)
class ExampleCounts:
    """The last run's training items of one origin."""

    kept: int = 0
    rejected: int = 0
    reasons: Annotated[dict[str, int], Field(description="of the rejected ones")] = field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatistics:
    """The numbers of one task. Money is in US dollars; None where no price is known."""

    task: str | None
    traces: int
    new_traces: int  # that can be learned from, since `used_until`
    served: dict[str, Served]  # by route: teacher, student, fallback
    errors: list[ErrorCount]
    traffic: TokenCount  # answered by the teacher, fallbacks included
    student: TokenCount  # answered by students
    traffic_cost: float | None
    mean_teacher_cost: float | None  # of one answer with a known price
    distilling: dict[str, TokenCount]  # by purpose
    distilling_cost: float | None
    distilling_costs: dict[str, float | None]  # by purpose
    examples: dict[str, ExampleCounts]  # of the last run that has some, by origin


def task_statistics(
    db: Database,
    task: str | None,
    *,
    used_until: float = 0.0,
    recent_since: float = 0.0,
    prices: Mapping[str, Price] | None = None,
) -> TaskStatistics:
    """The numbers of one task, of the untagged requests for None.

    `recent_since`: where the window of the recent numbers begins, seconds since the epoch.
    `prices`: US dollars a token by teacher model, for what distilling cost.
    """
    usage = {row["served_by"]: row for row in db.query("usage", task=task)}
    served = _served(db, task, recent_since)
    distilling, costs = _distilling(db, task, prices or {})
    new = db.query("new_teacher_traces", task=task, since=used_until, asked_since=0.0)
    teacher = usage.get("teacher", {})
    return TaskStatistics(
        task=task,
        traces=sum(s.requests for s in served.values()),
        new_traces=new[0]["traces"],
        served=served,
        errors=[ErrorCount(**row) for row in db.query("errors", task=task)],
        traffic=_tokens(teacher),
        student=_tokens(usage.get("student", {})),
        traffic_cost=teacher.get("cost"),
        mean_teacher_cost=teacher.get("mean_cost"),
        distilling=distilling,
        distilling_cost=_sum(costs.values()),
        distilling_costs=costs,
        examples=_examples(db, task),
    )


def _served(db: Database, task: str | None, since: float) -> dict[str, Served]:
    reasons: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in db.query("reasons", task=task):
        reasons[row["route"]][row["reason"]] = row["requests"]
    by_route = {}
    for row in db.query("served", task=task, since=since):
        route = row.pop("route")
        by_route[route] = Served(**row, reasons=reasons[route])
    return by_route


def _distilling(
    db: Database, task: str | None, prices: Mapping[str, Price]
) -> tuple[dict[str, TokenCount], dict[str, float | None]]:
    """Tokens by purpose, and what they cost: None when one model's price is not known."""
    tokens: dict[str, TokenCount] = {}
    costs: dict[str, float | None] = {}
    for row in db.query("distilling", task=task):
        so_far = tokens.get(row["purpose"], TokenCount(calls=0, input=0, output=0))
        tokens[row["purpose"]] = replace(
            so_far,
            calls=so_far.calls + row["calls"],
            input=so_far.input + row["input"],
            output=so_far.output + row["output"],
        )
        price = price_of(prices, row["model"])
        cost = row["input"] * price.input + row["output"] * price.output if price else None
        costs[row["purpose"]] = _sum([costs.get(row["purpose"], 0.0), cost])
    return tokens, costs


def _sum(costs: Iterable[float | None]) -> float | None:
    """The costs together; None when one is not known."""
    total = 0.0
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def _examples(db: Database, task: str | None) -> dict[str, ExampleCounts]:
    by_origin: defaultdict[str, ExampleCounts] = defaultdict(ExampleCounts)
    for row in db.query("example_counts", task=task):
        counts = by_origin[row["origin"]]
        if row["status"] == "kept":
            counts.kept += row["examples"]
        else:
            counts.rejected += row["examples"]
            counts.reasons[row["reason"]] = row["examples"]
    return dict(by_origin)


def _tokens(row: Mapping[str, int]) -> TokenCount:
    return TokenCount(
        calls=row.get("calls", 0),
        input=row.get("input", 0),
        output=row.get("output", 0),
        estimated=row.get("estimated", 0),
    )
