"""The LiteLLM proxy as a child: for teachers that do not speak OpenAI's API themselves.

It gets `model_list` and LiteLLM's own blocks of our config as they stand, with references such as
`os.environ/NAME` intact, listens on loopback, and is called with a key of this run. Importing it
takes 12 to 17 seconds, so the proxy does not wait for it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.serve.children import ChildSpec
from store.errors import ConfigError
from store.files.atomic import make_folder, write_atomically
from store.jsontext import JsonObject
from store.process import leash
from store.settings.config import (
    ENV_PREFIX,
    LITELLM_BLOCKS,
    Config,
    from_environment,
    header_safe,
)

KEY_VARIABLE = "UNDERSTUDY_LITELLM_KEY"
GRACE_S = 3.0
# a database of LiteLLM's would need its own server and client; traces are kept by Understudy
_DATABASE_SETTINGS = ("database_url", "store_model_in_db")
_HEADER_KEYS = ("api_key", "master_key")  # sent as a header, so on one line; others may be PEM
_SECRET = re.compile(r"(?:^|_)(?:key|token|secret|password)(?:_id)?$", re.IGNORECASE)
_DATABASE_VARIABLES = ("DATABASE_", "DIRECT_URL")


@dataclass(frozen=True, slots=True)
class LitellmChild:
    """How to start LiteLLM, and how to call it then."""

    spec: ChildSpec
    file: Path  # its config
    port: int
    url: str  # with /v1
    key: str = field(repr=False)
    left_out: list[str]  # settings of general_settings that are not handed on


def litellm_child(
    config: Config,
    *,
    config_folder: Path,
    port: int,
    environment: Mapping[str, str] = os.environ,
    file_name: str = "litellm.yaml",
) -> LitellmChild:
    """Writes LiteLLM's config into `data_dir` and returns how to start LiteLLM with it.

    `config_folder` becomes its working directory: LiteLLM finds callbacks and credential files
    that a config names relative to it. Raises ConfigError when the master key that the config
    names is not set, or when the file cannot be written.
    """
    settings, left_out = litellm_config(config)
    settings = {name: _stripped(value, name) for name, value in settings.items()}
    file = config.data_dir.absolute() / file_name
    log = config.data_dir.absolute() / "logs" / "litellm.log"
    try:
        make_folder(log.parent)
        write_atomically(file, yaml.safe_dump(settings, sort_keys=False).encode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror})") from None
    key = _master_key(config) or f"sk-{secrets.token_urlsafe(32)}"
    arguments = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    spec = ChildSpec(
        name="LiteLLM",
        argv=leash.command("litellm.proxy.proxy_cli", *arguments, "--telemetry", "False"),
        env=_environment(environment, key, settings),
        cwd=config_folder,
        log=log,
        grace_s=GRACE_S,
        stage=2,  # the proxies and the control plane call it until they end
    )
    return LitellmChild(spec, file, port, f"http://127.0.0.1:{port}/v1", key, left_out)


def litellm_config(config: Config) -> tuple[JsonObject, list[str]]:
    """LiteLLM's part of our config, and which of its settings were left out of it."""
    settings: JsonObject = {"model_list": config.model_list}
    for block in LITELLM_BLOCKS:
        if getattr(config, block):
            settings[block] = getattr(config, block)
    general = dict(settings.get("general_settings", {}))
    left_out = [name for name in _DATABASE_SETTINGS if general.pop(name, None) is not None]
    if not general.get("master_key"):
        general["master_key"] = f"os.environ/{KEY_VARIABLE}"
    settings["general_settings"] = general
    return settings, left_out


def _master_key(config: Config) -> str | None:
    named, where = (config.general_settings or {}).get("master_key"), "general_settings.master_key"
    if not named:
        return None
    try:
        return header_safe(str(from_environment(named, where)))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _stripped(value: Any, where: str) -> Any:
    """The settings with secrets without the white space around them, such as a file's line end.

    Raises ConfigError for a key that no header can hold.
    """
    if isinstance(value, list):
        return [_stripped(one, f"{where}[{number}]") for number, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    stripped = {}
    for name, inner in value.items():
        inner_where = f"{where}.{name}"
        stripped[name] = _stripped(inner, inner_where)
        if isinstance(inner, str) and _SECRET.search(str(name)):
            stripped[name] = inner.strip()
            if name in _HEADER_KEYS and inner.strip():
                try:
                    header_safe(inner)
                except ValueError as error:
                    raise ConfigError(f"{inner_where}: {error}") from None
    return stripped


def _variables(value: Any) -> set[str]:
    """The environment variables that settings refer to."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_variables, value))
    refers = isinstance(value, str) and value.startswith(ENV_PREFIX)
    return {value.removeprefix(ENV_PREFIX)} if refers else set()


def _environment(inherited: Mapping[str, str], key: str, settings: JsonObject) -> dict[str, str]:
    """LiteLLM's environment; it finds keys by references, and under names of its own."""
    referred = _variables(settings)
    env = {
        name: value.strip() if name in referred or _SECRET.search(name) else value
        for name, value in inherited.items()
        if not name.startswith(_DATABASE_VARIABLES)
    }
    env |= {
        KEY_VARIABLE: key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it asks the internet while it starts
        "LITELLM_MODE": "PRODUCTION",  # or it reads any .env file it finds
        "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true",
        "PYTHONSAFEPATH": "1",
    }
    # its error messages may quote a request: opt-in by setting LITELLM_LOG
    env.setdefault("LITELLM_LOG", "CRITICAL")
    return env
