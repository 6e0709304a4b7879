"""All settings, as small frozen value objects. `config.yaml` at the top is their reference.

Unknown settings are refused. `os.environ/NAME` takes a value from the environment, as in LiteLLM.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from store.errors import ConfigError
from store.jsontext import JsonObject
from store.privacy.settings import PrivacySettings
from store.settings.limits import RateLimits, ServerLimits
from store.settings.renamed import BothNamesGiven, with_current_names
from store.settings.tasks import TaskSettings
from store.settings_model import Settings

TAG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
ENV_PREFIX = "os.environ/"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
LITELLM_BLOCKS = (
    "litellm_settings",
    "router_settings",
    "general_settings",
    "environment_variables",
    "callback_settings",
)

# what a key allows: requests; changes of settings, of which there are none over HTTP yet; commands
# such as pause and promote; forgetting
Right = Literal["use", "configure", "operate", "forget"]
Tag = Annotated[str, Field(pattern=rf"^{TAG.pattern}$")]


class ApiKey(Settings):
    """A key that clients may use."""

    key: SecretStr
    name: str = Field(min_length=1, description="shown at the start instead of the key")
    task: Tag | None = Field(default=None, description="task of requests that bring no tag")
    may: list[Right] = Field(default=["use"], description="[]: read the status")
    limits: RateLimits = Field(default_factory=RateLimits)
    store: bool = Field(default=True, description="whether content of its requests is kept")

    @field_validator("key", mode="after")
    @classmethod
    def _can_be_sent(cls, key: SecretStr) -> SecretStr:
        return SecretStr(header_safe(key.get_secret_value()))


class ServerSettings(Settings):
    host: str = "127.0.0.1"
    port: int = Field(default=4100, ge=0, le=65535)
    workers: int = Field(default=1, ge=1)
    drain_s: float = Field(default=15, ge=0)
    keys: list[ApiKey] = Field(default_factory=list)
    cors_origins: list[str] = Field(default_factory=list)
    limits: ServerLimits = Field(default_factory=ServerLimits)
    body_limit_mb: float = Field(default=64, gt=0)
    head_timeout_s: float = Field(default=30, gt=0)
    body_kb_per_s: float = Field(default=1, ge=0, description="at least, after head_timeout_s")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _no_keys_only_on_loopback(self) -> Self:
        if not self.keys and self.host not in LOOPBACK_HOSTS:
            raise ValueError(f"server.host {self.host} is reachable from outside: set server.keys")
        if not self.keys and "*" in self.cors_origins:
            raise ValueError("server.cors_origins: pages of any origin (*) need server.keys")
        return self

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin, as browsers send it: https://app.example, without "
                    "a path, in lower case, with a port where it is not the scheme's own"
                )
        return origins


class TeacherSettings(Settings):
    model: str | None = None
    connect_timeout_s: float = Field(default=10, gt=0)
    read_timeout_s: float = Field(default=900, gt=0)
    litellm_start_timeout_s: float = Field(default=90, gt=0)


class TelemetrySettings(Settings):
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")


class ResponsesSettings(Settings):
    """Stored responses of students, which clients may refer to later."""

    keep_days: float = Field(default=30, ge=0, le=3650)


class JournalSettings(Settings):
    segment_seconds: float = Field(default=1, gt=0)
    segment_mb: float = Field(default=16, gt=0)
    backlog_mb: float = Field(default=64, gt=0)
    fsync: bool = False
    keep_days: float = Field(default=3, ge=0, le=3650)
    keep_mb: float = Field(default=1024, ge=0)


class StoreSettings(Settings):
    memory_limit: str = "1GB"
    threads: int = Field(default=1, ge=1)


class SchedulerSettings(Settings):
    ingest_seconds: float = Field(default=1, gt=0)
    due_seconds: float = Field(default=5, gt=0)
    health_seconds: float = Field(default=2, gt=0)


class RetentionSettings(Settings):
    """How long traces and runs are kept, and when forgetting leads to a new run."""

    traces_days: float | None = Field(default=None, gt=0)
    runs_days: float | None = Field(default=None, gt=0)
    retrain_forgotten: bool = False


class Config(Settings):
    """The whole configuration."""

    model_list: list[JsonObject] = Field(min_length=1)
    litellm_settings: JsonObject | None = None
    router_settings: JsonObject | None = None
    general_settings: JsonObject | None = None
    environment_variables: JsonObject | None = None
    callback_settings: JsonObject | None = None

    data_dir: Path = Path("understudy-data")
    server: ServerSettings = Field(default_factory=ServerSettings)
    teacher: TeacherSettings = Field(default_factory=TeacherSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    responses: ResponsesSettings = Field(default_factory=ResponsesSettings)
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    task_defaults: TaskSettings = Field(default_factory=TaskSettings)
    tasks: dict[Tag, JsonObject] = Field(default_factory=dict)

    # shown by `serve` and `check`
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("model_list")
    @classmethod
    def _deployments_are_whole(cls, entries: list[JsonObject]) -> list[JsonObject]:
        for number, entry in enumerate(entries):
            if not isinstance(entry.get("model_name"), str):
                raise ValueError(f"entry {number} has no model_name")
            params = entry.get("litellm_params")
            if not isinstance(params, dict) or not isinstance(params.get("model"), str):
                raise ValueError(
                    f"entry {number} ({entry['model_name']}) has no litellm_params.model"
                )
        return entries

    @model_validator(mode="after")
    def _teacher_and_tasks_fit(self) -> Self:
        names = [entry["model_name"] for entry in self.model_list]
        if self.teacher.model is not None and self.teacher.model not in names:
            raise ValueError(f"teacher.model {self.teacher.model} is not in model_list")
        for tag in self.tasks:
            self.task(tag)
        return self

    def task(self, tag: str) -> TaskSettings:
        """The settings of one task: `task_defaults`, overlaid with its entry in `tasks`."""
        overlay = self.tasks.get(tag)
        if not overlay:
            return self.task_defaults
        if isinstance(overlay.get("student"), str):  # the kind alone: the rest stays as it is
            overlay = {**overlay, "student": {"kind": overlay["student"]}}
        return TaskSettings.model_validate(_merged(self.task_defaults.model_dump(), overlay))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the config says under a former name, or without effect; one sentence each."""
        return self._warnings

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def responses_dir(self) -> Path:
        return self.data_dir / "responses"

    @property
    def responses_days(self) -> float:
        """How long students' responses are kept: no longer than traces. 0: none is."""
        return min(self.responses.keep_days, self.retention.traces_days or inf)

    @property
    def journal_keep_days(self) -> float:
        """How long copies of collected segments are kept: no longer than traces. 0: none is."""
        return min(self.journal.keep_days, self.retention.traces_days or inf)

    @property
    def routes_file(self) -> Path:
        return self.data_dir / "routes.json"

    @property
    def database_file(self) -> Path:
        return self.data_dir / "understudy.duckdb"

    @property
    def runs_dir(self) -> Path:
        return self.data_dir / "runs"


def header_safe(key: str) -> str:
    """A key without the white space around it, such as the line end of the file it came from.

    Raises ValueError for a key that no header can hold; its message does not repeat the key.
    """
    key = key.strip()
    if not key:
        raise ValueError("the key is empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in key):
        raise ValueError("the key has a line end or another control character in it")
    return key


def _merged(base: JsonObject, overlay: JsonObject) -> JsonObject:
    merged = dict(base)
    for name, value in overlay.items():
        below = merged.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[name] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def from_environment(value: Any, where: str) -> Any:
    """Replaces `os.environ/NAME` by the variable's value, anywhere inside `value`.

    Raises ConfigError that names the place and the variable, never a value.
    """
    if isinstance(value, str) and value.startswith(ENV_PREFIX):
        name = value.removeprefix(ENV_PREFIX)
        resolved = os.environ.get(name)
        if not resolved:
            raise ConfigError(f"{where}: the environment variable {name} is not set")
        return resolved
    if isinstance(value, dict):
        return {k: from_environment(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [from_environment(v, f"{where}[{i}]") for i, v in enumerate(value)]
    return value


class _Loader(yaml.SafeLoader):
    """Reads the labels of `protect` as they are written: YAML 1.1 takes a bare `yes` for true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, value in node.value:
            if getattr(key, "value", None) == "protect" and isinstance(value, yaml.SequenceNode):
                for label in value.value:
                    if isinstance(label, yaml.ScalarNode):
                        label.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def load_config(path: Path) -> Config:
    """Reads and checks a config file. Raises ConfigError with every fault that it has."""
    return config_from_yaml(read_config(path), where=str(path))


def read_config(path: Path) -> bytes:
    """The content of a config file. Raises ConfigError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give one with --config") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None


def config_from_yaml(content: bytes, *, where: str) -> Config:
    """Checks the content of a config file. Raises ConfigError with every fault that it has."""
    try:
        raw = yaml.load(content.decode("utf-8"), _Loader)  # noqa: S506  (a SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: cannot be read ({type(error).__name__})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}: not valid YAML{line}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: not a mapping of settings")
    return parse_config(raw, where=where)


def parse_config(raw: JsonObject, *, where: str = "config") -> Config:
    """Checks settings that are already read. Raises ConfigError with every fault they have.

    Former names of settings are accepted; `Config.warnings` names them, and what has no effect.

    `model_list` and LiteLLM's own blocks keep their `os.environ/…` references:
    store.settings.teachers resolves what is called directly, and LiteLLM's child resolves its own.
    """
    handed_on = {k: v for k, v in raw.items() if k == "model_list" or k in LITELLM_BLOCKS}
    ours = {k: v for k, v in raw.items() if k not in handed_on}
    try:
        ours, warnings = with_current_names(ours)
        config = Config.model_validate({**handed_on, **from_environment(ours, where)})
    except BothNamesGiven as error:
        raise _refused(where, str(error).splitlines()) from None
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        faults = [
            f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}{_nearest(e)}" for e in details
        ]
        raise _refused(where, faults) from None
    config._warnings = (*warnings, *_without_effect(config.server.keys))
    return config


def _without_effect(keys: Sequence[ApiKey]) -> list[str]:
    """A sentence for each right that allows nothing in this version."""
    return [
        f"server.keys ({key.name}): nothing can be configured over HTTP yet, so the right "
        "`configure` allows nothing"
        for key in keys
        if "configure" in key.may
    ]


def _nearest(fault: ErrorDetails) -> str:
    """`: did you mean …?` for an unknown setting, where a known one has a similar name."""
    if fault["type"] != "extra_forbidden":
        return ""
    *above, name = fault["loc"]
    # what is wrong in an entry of `tasks` is reported from there on
    known = _names_below(Config, above) + _names_below(TaskSettings, above)
    near = get_close_matches(str(name), known, n=1)
    return f": {name}: did you mean {near[0]}?" if near else ""


def _names_below(settings: type[Settings], above: Sequence[int | str]) -> list[str]:
    """The names of the settings at a place in the config."""
    if not above:
        return list(settings.model_fields)
    name, *rest = above
    if name == "tasks" and rest:  # settings of the task with this tag
        return _names_below(TaskSettings, rest[1:])
    if isinstance(name, int):  # an entry of a list
        return _names_below(settings, rest)
    field = settings.model_fields.get(str(name))
    inner = _settings_in(field.annotation) if field is not None else None
    return [] if inner is None else _names_below(inner, rest)


def _settings_in(annotation: Any) -> type[Settings] | None:
    """The class of settings that a field holds, perhaps in a list or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    found = (_settings_in(inner) for inner in get_args(annotation))
    return next((one for one in found if one is not None), None)


def _refused(where: str, faults: list[str]) -> ConfigError:
    return ConfigError("\n  ".join([f"{where} cannot be used:", *faults]))
