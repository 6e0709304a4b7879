"""The config as it was accepted: a copy in the data folder, for children that start later.

The config file may be half edited when a child crashes, and the child must come back with the
settings that it had. `os.environ/…` stays a reference, and relative paths in a config are relative
to the working directory, so a copy means the same as the original. A copy that is deleted or edited
is written again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from store.errors import ConfigError
from store.files.atomic import read_regular, write_atomically

FOLDER = "accepted"


class AcceptedConfigs:
    """The copies of one `serve`."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.absolute() / FOLDER
        self._written = 0
        self._contents: dict[Path, bytes] = {}

    def write(self, content: bytes) -> Path:
        """A new copy, readable by its owner alone. Raises ConfigError when it cannot be written."""
        self._written += 1
        file = self._folder / f"config-{self._written}.yaml"
        try:
            write_atomically(file, content)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written ({error.strerror})") from None
        self._contents[file] = content
        return file

    def remember(self, file: Path) -> None:
        """Has `restore` watch over another file, as it is now. Raises OSError."""
        self._contents[file] = file.read_bytes()

    def restore(self) -> list[Path]:
        """Writes files again that are not as they were written; returns those.

        Where that fails now, the next call tries again.
        """
        restored = []
        for file, content in self._contents.items():
            with contextlib.suppress(OSError):
                if not _holds(file, content):
                    write_atomically(file, content)
                    restored.append(file)
        return restored

    def keep_only(self, files: Collection[Path]) -> None:
        """Removes the other copies, also those of an earlier run."""
        self._contents = {file: one for file, one in self._contents.items() if file in files}
        for file in self._folder.glob("*.yaml"):
            if file not in files:
                with contextlib.suppress(OSError):
                    file.unlink()


def _holds(file: Path, content: bytes) -> bool:
    try:
        return read_regular(file, len(content)) == content
    except OSError:
        return False
