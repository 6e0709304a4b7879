"""Which of a student's live comparisons belong together, as far as the store knows.

The rules are in distill.dataset.live_groups; the group of a comparison is stored with it, as the
trace of the group's first one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from distill.dataset.exchange import lesson_of
from distill.dataset.groups import MAX_BRANCHES, Member, said
from distill.dataset.live_groups import KEPT, LiveGroups
from store.chat.normal_form import normal_answer
from store.chat.prompt_templates import values
from store.chat.shape import Messages, beginnings, system_text
from store.database.comparisons import compared_inputs, set_group_keys
from store.database.database import Database
from store.records import LoggedExchange, PromptTemplate


def groups_like(
    exchanges: Sequence[LoggedExchange], templates: Sequence[PromptTemplate]
) -> LiveGroups:
    """Groups of live inputs, without any yet. `exchanges`: what such inputs are like."""
    return LiveGroups(
        [
            member_of(
                one.request.messages,
                templates,
                name=one.trace_id,
                at=one.asked_at,
                answer=lesson_of(one).target,
            )
            for one in exchanges
        ]
    )


def member_of(
    messages: Messages,
    templates: Sequence[PromptTemplate],
    *,
    name: str,
    at: float = 0.0,
    answer: str = "",
) -> Member:
    """What grouping looks at of a request. `templates`: of the system prompts that vary."""
    text = system_text(messages) if templates else ""
    found = (values(template, text) for template in templates)
    users, all_text = said(messages, next((v for v in found if v is not None), ()))
    return Member(name=name, at=at, users=users, text=all_text, answer=normal_answer(answer))


def catch_up(
    db: Database,
    groups: LiveGroups,
    student_id: str,
    since: float,
    templates: Sequence[PromptTemplate],
) -> None:
    """Has `groups` know the newest comparisons made after `since`, and groups those without one.

    For groups without any input yet.
    """
    _group(db, groups, student_id, since, templates, ungrouped=False)


def group_new(
    db: Database,
    groups: LiveGroups,
    student_id: str,
    since: float,
    templates: Sequence[PromptTemplate],
) -> None:
    """Groups the comparisons made after `since` that have no group: those made of feedback."""
    _group(db, groups, student_id, since, templates, ungrouped=True)


def _group(
    db: Database,
    groups: LiveGroups,
    student_id: str,
    since: float,
    templates: Sequence[PromptTemplate],
    *,
    ungrouped: bool,
) -> None:
    new = []
    for one in compared_inputs(db, student_id, since, KEPT, ungrouped=ungrouped):
        member = member_of(one.messages, templates, name=one.trace_id)
        if one.group_key is None:
            key = groups.group_of(one.trace_id, member)
            new.append(replace(one, group_key=key))
        else:
            groups.remember(one.group_key, member)
    set_group_keys(db, new)


def generic_beginnings(exchanges: Sequence[LoggedExchange]) -> frozenset[str]:
    """The beginnings of many conversations: a greeting, or examples that stand before each input.

    As store.chat.shape.beginnings has them.
    """
    nexts: defaultdict[str, set[str]] = defaultdict(set)
    for exchange in exchanges:
        turns = beginnings(exchange.request.messages)
        for one, after in pairwise(turns):
            nexts[one].add(after)
    return frozenset(one for one, after in nexts.items() if len(after) > MAX_BRANCHES)
