"""Commands by hand in the database, and what the last of them means."""

from __future__ import annotations

import pytest

from store.database.actions import actions_of_task, append_action, paused_tasks
from store.database.database import Database
from tests.helpers.samples import an_action


def test_actions_come_back_newest_first(db: Database) -> None:
    first, second = an_action(at=1.0), an_action(at=2.0, command="promote", forced=True)
    for action in (first, second, an_action(task="other")):
        append_action(db, action)

    assert actions_of_task(db, "triage") == [second, first]
    assert actions_of_task(db, "triage", limit=1) == [second]


@pytest.mark.parametrize(
    ("commands", "paused"),
    [
        (["pause"], True),
        (["pause", "resume"], False),
        (["pause", "resume", "pause"], True),
        (["pause", "retrain"], True),
        (["demote"], False),
    ],
)
def test_a_task_is_paused_if_its_last_pause_or_resume_is_a_pause(
    db: Database, commands: list[str], paused: bool
) -> None:
    for at, command in enumerate(commands):
        append_action(db, an_action(at=float(at), command=command))
    append_action(db, an_action(task="other", command="resume"))

    assert paused_tasks(db) == ({"triage"} if paused else set())
