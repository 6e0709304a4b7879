"""The effect of a setting: two of its values, and the observation of the product with each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.settings.config import parse_config
from store.settings.tasks import TaskSettings
from tests.helpers.serving import settings

Raw = dict[str, Any]  # the content of a config file
Given = Mapping[str, Any]  # other settings, by path

TASK = "triage"


@dataclass(frozen=True)
class Effect:
    """One setting's effect. `seen` observes the product with a config; it may be a coroutine.

    `given` are other settings that the effect needs, the same with both values, or a function of
    the value.
    """

    seen: Callable[[Raw], Any]
    one: tuple[Any, Any]  # a value, and the observation with it
    other: tuple[Any, Any]
    given: Given | Callable[[Any], Given] = field(default_factory=dict)
    slow: bool = False  # starts a real student or a real training

    def config(self, path: str, value: Any, folder: Path) -> Raw:
        """A config in which the setting has this value. Its data folder is in `folder`."""
        raw = settings("http://127.0.0.1:9/v1", folder / "data")
        given = self.given(value) if callable(self.given) else self.given
        for where, what in {**given, path: value}.items():
            lay(raw, where, what)
        return raw


def lay(raw: Raw, path: str, value: Any) -> None:
    """Gives the setting at a path a value. A list on the way stands for its first entry."""
    *above, name = path.split(".")
    inner: Any = raw
    for step in above:
        inner = inner.setdefault(step, {})
        inner = inner[0] if isinstance(inner, list) else inner
    inner[name] = deepcopy(value)


def of_task(raw: Raw) -> TaskSettings:
    """The settings of the task that these tests distil."""
    return parse_config(raw).task(TASK)


def no_progress(*_: object) -> None:
    """A progress callback that ignores its arguments."""
