"""`understudy reload`: has a running server read its config again, and prints the outcome."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import yaml

from cli.serve.data_folder import ServeNote, is_held, running_server
from store.errors import ConfigError, ProductError
from store.settings.config import Config, from_environment, read_config

# LiteLLM may have to start before anything is replaced
WAIT_S = 300.0
_POLL_S = 0.05


def reload(config_path: Path) -> str:
    """What the server of this config has changed, in words.

    Raises ConfigError when it refuses the config, ProductError when none runs or does not answer.
    The server checks the config, as it has the environment variables that the config refers to.
    """
    folder = data_dir_of(config_path)
    running = running_server(folder)
    if running is None or not is_held(folder):
        raise ProductError(f"no understudy serves from {folder}: start one with `understudy serve`")
    used = running.config or str(config_path.absolute())
    if not _same(Path(used), config_path):
        raise ProductError(f"the server on {folder} was started with {used}: give it with --config")
    pid, awaited = running.pid, running.reloads + 1
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        raise ProductError(f"the server on {folder} has just ended") from None
    except PermissionError:
        raise ProductError(f"the server (PID {pid}) belongs to another user") from None
    outcome = _outcome(folder, pid, awaited)
    if not outcome.applied:
        raise ConfigError(f"reload refused: {outcome.said}")
    return outcome.said


def _outcome(folder: Path, pid: int, awaited: int) -> ServeNote:
    """The server's note on this reload."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        note = running_server(folder)
        if note is not None and note.pid == pid and note.reloaded >= awaited:
            return note
        if not is_held(folder):
            raise ProductError("the server has ended instead of reading its config again")
        time.sleep(_POLL_S)
    raise ProductError(f"the server (PID {pid}) has not read its config again in {WAIT_S:g} s")


def data_dir_of(config_path: Path) -> Path:
    """The data folder that a config names, whatever else is wrong with it. Raises ConfigError."""
    try:
        raw = yaml.safe_load(read_config(config_path))
    except yaml.YAMLError:
        raise ConfigError(f"{config_path}: not valid YAML; `understudy check` says more") from None
    named = raw.get("data_dir") if isinstance(raw, dict) else None
    if named is None:
        named = Config.model_fields["data_dir"].default
    return Path(str(from_environment(named, "data_dir")))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
