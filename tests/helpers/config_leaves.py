"""The single settings of a class of settings, for tests that go through all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def leaves(settings: type[BaseModel], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The path and the default of each setting."""
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, *above, name)
        else:
            required = field.is_required()
            yield (*above, name), None if required else field.get_default(call_default_factory=True)
