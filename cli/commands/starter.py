"""The starter config: what it says, by answers and by this machine, and its file."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from cli.commands.options import DEFAULT_CONFIG
from store.errors import ConfigError
from store.files.atomic import write_atomically
from store.settings.config import LOOPBACK_HOSTS, config_from_yaml
from store.settings.teachers import OPENAI_BASE_URL

_OPENAI_MODEL = "gpt-4.1"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")
_GB = 1024**3
# from so many gigabytes of memory on, with a GPU that shares it; training takes several times the
# base's own size
_BASES = (
    (32, "mlx-community/Qwen3-4B-4bit"),
    (16, "mlx-community/Qwen3-1.7B-4bit"),
    (0, "mlx-community/Qwen3-0.6B-4bit"),
)


@dataclass(frozen=True, slots=True)
class Base:
    """The base student for a machine, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Starter:
    """What the starter config says."""

    url: str | None  # with /v1; None: the provider's own address
    model: str  # as the endpoint names it, or provider/model
    key_variable: str | None  # the environment variable that has the teacher's key
    base: Base
    host: str
    port: int
    key: str | None  # of the first client; None on loopback


Ask = Callable[[str, str], str]  # (question, default) → answer


def answered(
    url: str | None,
    model: str | None,
    key_variable: str | None,
    ask: Ask,
    *,
    base: str | None = None,
    host: str = "127.0.0.1",
    port: int = 4100,
) -> Starter:
    """The starter config by what was given, and by answers to what was not. Raises ConfigError."""
    provider, _, name = (model or "").partition("/")
    named = bool(url is None and provider and name)  # by LiteLLM, which knows its address
    if url is None and not named:
        url = ask("The teacher's URL", OPENAI_BASE_URL)
    if url is not None:
        url = _checked_url(url)
    if model is None:
        model = ask("The teacher's model", _OPENAI_MODEL if url == OPENAI_BASE_URL else "")
    if not model.strip():
        raise ConfigError("which model is the teacher? Give its name with --model")
    if key_variable is None:
        usual = f"{provider.upper()}_API_KEY" if named else _usual_variable(url or "")
        key_variable = ask("The environment variable that has its key (empty: no key)", usual)
    return Starter(
        url=None if url == OPENAI_BASE_URL else url,
        model=model.strip(),
        key_variable=_checked_variable(key_variable),
        base=Base(base, "as given") if base else base_for(memory_gb(), gpu=_has_gpu()),
        host=host,
        port=port,
        key=None if host in LOOPBACK_HOSTS else f"sk-{secrets.token_urlsafe(32)}",
    )


def _checked_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError("the teacher's URL begins with http:// or https://, and ends with /v1")
    return url.strip().rstrip("/")


def _usual_variable(url: str) -> str:
    if url == OPENAI_BASE_URL:
        return "OPENAI_API_KEY"
    host = urlsplit(url).hostname or ""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return "" if local else "TEACHER_API_KEY"


def _checked_variable(name: str) -> str | None:
    if name.strip() and not _VARIABLE.fullmatch(name.strip()):  # it may be the key: not repeated
        raise ConfigError(
            "give the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
        )
    return name.strip() or None


# ---- this machine --------------------------------------------------------------------------------


def base_for(memory: float, *, gpu: bool) -> Base:
    """The largest base that this machine trains and serves in reasonable time. `memory`: in GB."""
    if not gpu:
        return Base(_BASES[-1][1], "no GPU that MLX knows: a larger one would answer too slowly")
    name = next(name for from_gb, name in _BASES if memory >= from_gb)
    return Base(name, f"{memory:.0f} GB of memory")


def memory_gb() -> float:
    """The memory of this machine, in gigabytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB


def _has_gpu() -> bool:
    return sys.platform == "darwin" and os.uname().machine == "arm64"


# ---- the file ------------------------------------------------------------------------------------


def rendered(starter: Starter) -> str:
    """The config as YAML, with short comments."""
    provider, _, name = starter.model.partition("/")
    named = starter.url is None and bool(provider and name)
    upstream = starter.model if named else f"openai/{starter.model}"
    lines = [
        "# `understudy check` says what this means, `understudy serve` runs it. All settings, with",
        "# their defaults, stand in config.yaml of Understudy's repository.",
        "",
        "model_list: # the teacher",
        f"  - model_name: {_scalar(name if named else starter.model)} # as clients name it",
        "    litellm_params:",
        f"      model: {_scalar(upstream)}",
    ]
    if starter.url is not None:
        lines.append(f"      api_base: {_scalar(starter.url)}")
    if starter.key_variable is not None:
        lines.append(f"      api_key: os.environ/{starter.key_variable}")
    elif not named:
        lines.append("      api_key: none # this teacher asks for none")
    lines += [
        "",
        "data_dir: understudy-data # traces, students and runs; relative to where `serve` starts",
        "",
        "server:",
        f"  host: {_scalar(starter.host)}",
        f"  port: {starter.port}",
    ]
    if starter.key is not None:
        lines += [
            "  keys: # what clients send as their API key",
            f"    - key: {starter.key}",
            "      name: first",
            "      may: [use, operate, forget]",
        ]
    lines += [
        "",
        "task_defaults:",
        "  train:",
        f"    base: {_scalar(starter.base.name)} # {starter.base.reason}",
        "",
    ]
    return "\n".join(lines)


def _scalar(text: str) -> str:
    """A text in YAML: plain where that reads as the same text, else in double quotes."""
    try:
        if _PLAIN.fullmatch(text) and yaml.safe_load(f"- {text} #") == [text]:
            return text
    except yaml.YAMLError:
        pass
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**6)
    return quoted.rstrip("\n")


def write_starter(config: Path, starter: Starter, *, force: bool) -> None:
    """Writes the file for its owner alone. Raises ConfigError, also where it could not be used."""
    content = rendered(starter).encode()
    config_from_yaml(content, where="the starter config")
    try:
        if force:
            write_atomically(config.absolute(), content)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(config, flags, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"{config}: cannot be written ({error.strerror})") from None


def check_place(config: Path, *, force: bool) -> None:
    """Raises ConfigError where the file cannot be, or would replace another one."""
    if config.is_dir():
        raise ConfigError(f"{config} is a folder")
    if os.path.lexists(config) and not force:
        raise ConfigError(f"{config} is there already; --force replaces it")


def next_steps(config: Path, starter: Starter) -> list[str]:
    """What was written, and what to do now, in a few lines."""
    named = "" if config == DEFAULT_CONFIG else f" --config {config}"
    variable = starter.key_variable
    unset = variable is not None and not os.environ.get(variable)
    return [
        f"{config} is written: {starter.model} is the teacher, {starter.base.name} the base "
        f"({starter.base.reason})",
        *([f"set {variable} to the teacher's key"] if unset else []),
        *(["clients send the key that stands in it, under server.keys"] if starter.key else []),
        f"next: understudy check{named}, then understudy serve{named}",
    ]
