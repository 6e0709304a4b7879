"""The base class of all settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen, and closed to unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
