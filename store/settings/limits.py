"""Rate limits: of one key, and of all clients together."""

from __future__ import annotations

from pydantic import Field

from store.settings_model import Settings


class RateLimits(Settings):
    """The limits of one key. None: no limit."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1, description="in and out")
    in_flight: int | None = Field(default=None, ge=1, description="at a time, in one worker")
    in_flight_mb: float | None = Field(
        default=None, gt=0, description="None: half of all clients', where there are several keys"
    )


class ServerLimits(RateLimits):
    """The limits of all clients together."""

    in_flight: int = Field(default=1000, ge=1)
    in_flight_mb: float = Field(default=256, gt=0)
