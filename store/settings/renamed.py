"""Settings that had another name once: the former name still works, with a warning.

To rename a setting, change its field and its line in config.yaml, and put both names here.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from store.jsontext import JsonObject

# former name: current name, dotted, from the top of a config
RENAMED = {"retention.retrain_marked": "retention.retrain_forgotten"}
# the same for the settings of a task: below task_defaults and below each of tasks
RENAMED_IN_TASKS = {
    "audit.first": "audit.first_share",
    "audit.forced": "audit.forced_share",
    "audit.last": "audit.last_share",
    "evaluate.teacher_again": "evaluate.teacher_recheck",
    "gate.slice_rows": "gate.min_slice_rows",
    "rollout.rows": "rollout.min_comparisons",
}


class BothNamesGiven(ValueError):
    """A config sets the former and the current name of a setting. One line for each of them."""


def with_current_names(raw: JsonObject) -> tuple[JsonObject, list[str]]:
    """The content of a config file under the current names, and a warning for each former one.

    Raises BothNamesGiven.
    """
    current = deepcopy(raw)
    warnings, conflicts = [], []
    for above, settings, names in _renamable(current):
        for former, name in names.items():
            if not _is_set(settings, former):
                continue
            if _is_set(settings, name):
                conflicts.append(f"{above}{former} is now {above}{name}, which is set too")
                continue
            _set(settings, name, _take(settings, former))
            warnings.append(f"{above}{former} is now called {above}{name}: rename it in the config")
    if conflicts:
        raise BothNamesGiven("\n".join(conflicts))
    return current, warnings


def _renamable(raw: JsonObject) -> Iterator[tuple[str, JsonObject, dict[str, str]]]:
    """Each section with renamed settings: its prefix, its content, the renamed names."""
    yield "", raw, RENAMED
    defaults, tasks = raw.get("task_defaults"), raw.get("tasks")
    if isinstance(defaults, dict):
        yield "task_defaults.", defaults, RENAMED_IN_TASKS
    for tag, settings in tasks.items() if isinstance(tasks, dict) else ():
        if isinstance(settings, dict):
            yield f"tasks.{tag}.", settings, RENAMED_IN_TASKS


def _section(settings: JsonObject, name: str) -> tuple[JsonObject, str]:
    """The mapping that holds a setting (empty if there is none), and its key in it."""
    *above, key = name.split(".")
    for step in above:
        below = settings.get(step)
        settings = below if isinstance(below, dict) else {}
    return settings, key


def _is_set(settings: JsonObject, name: str) -> bool:
    section, key = _section(settings, name)
    return key in section


def _take(settings: JsonObject, name: str) -> Any:
    section, key = _section(settings, name)
    return section.pop(key)


def _set(settings: JsonObject, name: str, value: Any) -> None:
    *above, key = name.split(".")
    for step in above:
        settings = settings.setdefault(step, {})
    settings[key] = value
