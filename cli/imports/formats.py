"""The registered formats, and which of them a file has.

A format is a file of this folder with its `Format`, and its line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from cli.imports import bedrock, helicone, instructions, langfuse, langsmith, litellm, openai, otel
from cli.imports.logged import Format, Unusable
from cli.imports.rows import Row
from store.errors import ImportFailed

_MAX_ROWS = 100  # to read until the format is recognised
# the most specific first: a row is of the first format that it fits
FORMATS: dict[str, Format] = {
    registered.name: registered
    for registered in (
        litellm.FORMAT,
        helicone.FORMAT,
        bedrock.FORMAT,
        otel.FORMAT,
        langsmith.FORMAT,
        openai.STORED,
        langfuse.FORMAT,
        instructions.SHAREGPT,
        instructions.ALPACA,
        openai.FINETUNING,
    )
}


def recognize(
    rows: Iterator[Row | Unusable], path: Path, format_name: str | None
) -> tuple[Iterator[Row | Unusable], Format | None]:
    """The rows, and their format: `format_name`, or the first that a row fits; None without rows.

    Raises ImportFailed when no row fits any.
    """
    if format_name is not None:
        return rows, FORMATS[format_name]
    ahead: list[Row | Unusable] = []
    for row in rows:
        ahead.append(row)
        if isinstance(row, dict):
            for format_ in FORMATS.values():
                if format_.fits(row):
                    return chain(ahead, rows), format_
        if len(ahead) == _MAX_ROWS:
            break
    if not ahead:
        return rows, None
    names = ", ".join(FORMATS)
    raise ImportFailed(f"{path}: its format is not recognised; --format takes one of {names}")
