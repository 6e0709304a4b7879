"""A copy of the accepted config in the data folder, as the processes that `serve` starts read it"""

from __future__ import annotations

from pathlib import Path

from store.errors import ConfigError
from store.files.atomic import read_regular
from store.settings.config import Config, config_from_yaml

_MAX_BYTES = 1 << 26


def read_accepted(file: Path) -> Config:
    """The config in this copy. Raises ConfigError.

    Never waits: whoever reads a pipe in the place of the file would wait for ever, while it is
    written again by `serve` a moment later.
    """
    try:
        content = read_regular(file, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    return config_from_yaml(content, where=str(file))
