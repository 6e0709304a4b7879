"""The settings of one task: its distilling, and the service of its student."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from store.records import KindName, ScorerName
from store.settings_model import Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class SplitSettings(Settings):
    """Shares of a task's real inputs. They must add up to 1."""

    train: Share = 0.5
    calibration: Share = 0.2
    heldout: Share = 0.3

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.calibration + self.heldout
        if abs(total - 1) > 1e-6:
            raise ValueError(f"split shares add up to {total:g}, not to 1")
        return self


class AmplifySettings(Settings):
    target: int = Field(default=300, ge=0)
    batch: int = Field(default=10, ge=1, le=100)
    context: int = Field(default=8, ge=1, le=50)
    temperature: float = Field(default=0.9, ge=0, le=2)
    concurrency: int = Field(default=4, ge=1)
    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    token_budget: int = Field(default=1_000_000, ge=0)


class TrainSettings(Settings):
    base: str = "mlx-community/Qwen3-0.6B-4bit"
    rank: int = Field(default=16, ge=1, le=256)
    scale: float = Field(default=20.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layers: int = Field(-1, ge=-1)
    keys: list[str] | None = None
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=4, ge=1)
    epochs: float = Field(default=4, gt=0)
    iterations: int | None = Field(default=None, ge=1)
    max_iterations: int = Field(default=2000, ge=1)
    validations: int = Field(default=8, ge=1)
    max_seq_length: int = Field(default=2048, ge=16)
    mask_prompt: bool = True
    compare: bool = True
    parallel: int = Field(default=1, ge=1)
    seed: int = 0
    timeout_s: float = Field(default=7200, gt=0)


class EvaluateSettings(Settings):
    scorer: Literal["auto", ScorerName] = "auto"
    agree_at: float | None = Field(default=None, gt=0, le=1)
    rubric: str | None = Field(default=None, min_length=1)
    teacher_recheck: float = Field(default=0.05, ge=0, le=1)
    max_rows: int = Field(default=1000, ge=1)
    concurrency: int = Field(default=4, ge=1)


class GateSettings(Settings):
    threshold: float = Field(default=0.95, gt=0, lt=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    min_coverage: float = Field(default=0.3, gt=0, le=1)
    min_slice_rows: int = Field(default=20, ge=1)
    slice_tolerance: float = Field(default=0.1, ge=0, lt=1)
    protect: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list, max_length=100)


class RolloutSettings(Settings):
    """From the certificate to all of the traffic: shadow first, then these shares."""

    shadow_share: float = Field(default=0.5, gt=0, le=1)
    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.05, 0.25, 1.0], min_length=1
    )
    min_comparisons: int = Field(default=30, ge=0)
    confirm: bool = True

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if sorted(set(self.shares)) != self.shares:
            raise ValueError("shares must grow from one to the next")
        return self


class AuditSettings(Settings):
    """The audit rates: shares of a student's answers that the teacher is asked for afterwards."""

    first_share: float = Field(default=0.05, gt=0, le=1)
    last_share: float = Field(default=0.01, gt=0, le=1)
    forced_share: float = Field(default=0.2, gt=0, le=1)
    run_length: int = Field(default=5000, ge=100)
    fault_rate: float = Field(default=0.02, gt=0, lt=0.5)


class RaceSettings(Settings):
    """When a dearer student kind is trained beside a cheaper one."""

    worth: float = Field(default=0.05, ge=0, le=1)


class StudentSettings(Settings):
    """Which kind of student a task has, and its service. A bare name is the kind."""

    kind: Literal["auto", KindName] = "auto"
    request_timeout_s: float = Field(default=10, gt=0)
    start_timeout_s: float = Field(default=120, gt=0)


class TaskSettings(Settings):
    """Everything that one task's distilling depends on."""

    min_traces: int = Field(default=400, ge=10)
    paused: bool = False
    cooldown_s: float = Field(default=600, ge=0)
    split: SplitSettings = Field(default_factory=SplitSettings)
    amplify: AmplifySettings = Field(default_factory=AmplifySettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    rollout: RolloutSettings = Field(default_factory=RolloutSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    race: RaceSettings = Field(default_factory=RaceSettings)
    student: StudentSettings = Field(default_factory=StudentSettings)

    @field_validator("student", mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value
