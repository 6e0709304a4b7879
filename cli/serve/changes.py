"""The difference of two configs: which settings, and which children must be replaced. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cli.serve.litellm_child import litellm_config
from store.settings.config import Config
from store.settings.teachers import needs_litellm

# the socket and the folder are held from the start to the end of `serve`
FIXED = ("server.host", "server.port", "data_dir")
# Settings of one plane. A setting in neither list counts for both: a needless restart does less
# harm than a process with an old setting.
PROXIES_ONLY = (
    "server",  # the control plane takes server.log_level at its next start
    "journal.segment_seconds",
    "journal.segment_mb",
    "journal.backlog_mb",
    "journal.fsync",
    "teacher.connect_timeout_s",
    "teacher.read_timeout_s",
    "teacher.litellm_start_timeout_s",
)
CONTROL_PLANE_ONLY = (
    "store",
    "scheduler",
    "task_defaults",
    "tasks",
    "journal.keep_days",
    "journal.keep_mb",
)


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference of two configs: names of settings, no values."""

    settings: tuple[str, ...]
    fixed: tuple[str, ...]  # those of the settings that no running server can take
    proxies: bool  # whether the proxies have to follow
    control_plane: bool
    litellm: bool


def changes(old: Config, new: Config) -> Changes:
    """The settings that differ, and the children to replace."""
    settings = tuple(_differing(old.model_dump(), new.model_dump()))
    litellm = _for_litellm(old) != _for_litellm(new)
    return Changes(
        settings=settings,
        fixed=tuple(name for name in settings if name in FIXED),
        proxies=litellm or any(not _within(name, CONTROL_PLANE_ONLY) for name in settings),
        control_plane=litellm or any(not _within(name, PROXIES_ONLY) for name in settings),
        litellm=litellm,
    )


def _differing(old: dict[str, Any], new: dict[str, Any], *above: str) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differing(before, after, *above, name)
        else:
            yield ".".join((*above, name))


def _within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _for_litellm(config: Config) -> dict[str, Any] | None:
    return litellm_config(config)[0] if needs_litellm(config) else None
