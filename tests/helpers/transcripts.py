"""Golden transcripts of streams: the bytes that a teacher sent, and what they amount to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from proxy.surfaces.surface import Assembler
from tests.helpers.paths import GOLDEN


class Transcripts:
    """The transcripts of one API, and its assembler."""

    def __init__(self, assembler: Callable[[], Assembler], folder: Path = GOLDEN) -> None:
        self.assembler = assembler
        self._folder = folder
        self.names = sorted(path.stem for path in folder.glob("*.sse"))

    def read(self, name: str) -> tuple[bytes, dict[str, Any]]:
        """The bytes of a stream, and the completion that they amount to, as a dict."""
        raw = (self._folder / f"{name}.sse").read_bytes()
        return raw, json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))

    def assembled(self, *pieces: bytes) -> dict[str, Any]:
        """The completion that the assembler makes of a stream that comes in these pieces."""
        assembler = self.assembler()
        for piece in pieces:
            assembler.feed(piece)
        return msgspec.structs.asdict(assembler.finish())
