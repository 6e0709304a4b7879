"""The nouns of judging: what is measured of a student, what it is certified for, who serves.

As in store.models: frozen records, times in seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from store.models import OutputKind, ScorerName, Split

SliceKind = Literal["fingerprint", "label", "call"]
Step = Literal["shadow", "canary", "live"]
ComparisonKind = Literal["shadow", "audit", "feedback"]
Command = Literal["pause", "resume", "promote", "demote", "retrain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What a student's token log-probabilities say of one answer, the end token included."""

    lowest: float  # log-probability of a token
    mean: float  # of the tokens' log-probabilities
    # log of the sum of the rivals' probabilities; a token's rival is the likeliest one not chosen
    rivals: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceModel:
    """From signals to one confidence: a logistic function, see store.chat.confidence.

    The confidence is the estimated probability that the answer agrees with the teacher's.
    """

    intercept: float
    weights: dict[str, float]  # by the name of a signal, of what store.chat.confidence makes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The forms that the teacher's answers have. A student's answer of another one is not served.

    An empty list asks for nothing.
    """

    labels: list[str] = field(default_factory=list)  # every label, without space around it
    keys: list[list[str]] = field(default_factory=list)  # sorted keys of every kind of JSON object
    # every function that is called; an empty name for answers in words
    calls: list[str] = field(default_factory=list)
    # what stands for what was redacted, and for nothing that a client could use
    placeholders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """A system prompt that varies from request to request: what stays, and how long the rest is.

    `literals` stand in the prompt in this order, the first at its start and the last at its end
    (either may be empty); between two of them lies a hole of at most `holes[i]` characters.
    """

    template_id: str  # takes the place of a fingerprint: 16 hex digits
    shape: str  # hash of tools, response format and teacher model: store.chat.shape.rest_of_shape
    literals: list[str]
    holes: list[int]  # one less than literals
    distinct: int  # how many different prompts it was recognised from


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One held-out or calibration row, answered by the student and scored against the teacher."""

    run_id: str
    input_hash: str
    split: Split
    scorer: ScorerName
    score: float  # 0..1
    agrees: bool  # score ≥ the scorer's bar
    teacher_output: str
    student_output: str | None  # None: no usable answer
    confidence: float | None  # by the run's ConfidenceModel; None when unusable
    latency_ms: float
    fault: str | None = None  # a Reason, when the answer was not usable
    signals: Signals | None = None
    fingerprint: str = ""  # of the request, or the id of its prompt's template


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The served held-out rows of one fingerprint, or of one of the teacher's labels or calls."""

    kind: SliceKind
    name: str
    n: int
    agreed: int
    p_value: float  # of the hypothesis that it agrees at least as much as the floor
    below: bool  # proven to lie below the floor, by Holm's procedure over all slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """How much the teacher agrees with itself: held-out rows that it was asked once more."""

    n: int
    agreed: int
    share: float
    low: float  # exact two-sided interval of the share
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeCheck:
    """How good the judge is, by rows that people have judged too."""

    n: int
    agreement: float  # share of the rows on which judge and people say the same
    sensitivity: float | None  # share of the good answers that the judge calls good
    specificity: float | None  # share of the bad answers that the judge calls bad
    bias: float  # mean of (people - judge), -1..1
    bias_low: float  # its lower bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The gate's result, with everything that is needed to recompute it."""

    certificate_id: str
    task: str
    run_id: str
    method: str  # the bound's name
    scorer: ScorerName
    threshold: float  # what the lower bound must reach
    confidence_level: float  # 1 - alpha over all attempts of the task
    attempt: int = 1  # 1, 2, 3… of this task under these fingerprints
    alpha: float = 0.05  # of this attempt: (1 - confidence_level) / (attempt * (attempt + 1))
    prior: list[float] = field(
        default_factory=list
    )  # what the bound bets on, see distill.gate.gate
    n: int  # held-out rows at or above the cutoff
    agreed: int  # of those, how many agreed
    score: float  # agreed / n
    lower_bound: float
    cutoff: float | None  # lowest confidence served; None: everything is served
    cutoffs_tested: int = 1  # in the order fixed on the calibration split
    coverage: float  # n / all held-out rows
    heldout: int  # all held-out rows
    agreement_all: float  # agreement on all held-out rows, served or not
    min_coverage: float
    faults: int = 0  # held-out rows whose answer broke a limit or a format
    slices: list[Slice] = field(default_factory=list)
    ceiling: Ceiling | None = None
    judge: JudgeCheck | None = None  # None with scorer `judge`: uncorrected
    fingerprints: list[str]
    passed: bool
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What the proxy does with a task's requests now: one entry of `routes.json`."""

    task: str
    target: Literal["teacher", "student"]
    reason: str
    step: Step = "live"
    share: float = 1.0  # of the conversations that the student is certified for; 0: shadow
    forced: bool = False  # promoted by hand, past the gate
    student_id: str | None = None  # the run that made it
    base_url: str | None = None  # http://127.0.0.1:PORT, without /v1
    fingerprints: list[str] = field(default_factory=list)
    templates: list[PromptTemplate] = field(default_factory=list)
    confidence: ConfidenceModel | None = None  # None: the lowest token log-probability itself
    cutoff: float | None = None  # lowest confidence that may be served
    output: OutputKind = "text"  # a student's answer of another kind goes to the teacher
    forms: Forms | None = None  # and so does one of a form that the teacher never gave
    scorer: ScorerName = "exact"  # how its answers are compared with the teacher's
    agree_at: float = 1.0  # score from which they agree
    max_input_chars: int = 0  # longest input that was certified
    max_tokens: int = 512  # the student's limit, well above the longest target
    timeout_s: float = 10.0
    certificate_id: str | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One line in the append-only history of a task's route."""

    promotion_id: str
    task: str
    target: Literal["teacher", "student"]
    state: str  # a Step, or demoted
    reason: str
    actor: str  # `gate`, `rollout`, `audit`, or who did it by hand
    at: float
    run_id: str | None = None
    certificate: Certificate | None = None
    route: Route | None = None
    forced: bool = False  # past the gate, by hand
    suspect_since: float | None = None  # demoted: from when on the student's answers were wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One live request that both answered: the student's answer scored against the teacher's.

    `shadow`: the teacher served, the student was asked afterwards. `audit`: the student served, the
    teacher was asked afterwards. `feedback`: the student served, and a client says how well.
    """

    trace_id: str
    task: str
    student_id: str
    kind: ComparisonKind
    scorer: ScorerName
    score: float  # 0..1
    agrees: bool
    servable: bool  # the proxy serves such an answer: no fault, not below the cutoff
    fault: str | None  # a Reason, when it does not
    confidence: float | None
    teacher_output: str | None  # None: feedback without a correction
    student_output: str | None
    at: float  # when it was made


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a client says of an answer: one line of the journal, and of the store."""

    feedback_id: str
    trace_id: str
    feedback_at: float
    score: float | None = None  # 0 (bad) to 1 (good)
    correction: str | None = None  # the answer that it should have been
    feedback_key: str | None = None  # hash of the client's key


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing done by hand: append-only. The last pause or resume of a task holds."""

    action_id: str
    task: str
    command: Command
    actor: str
    reason: str
    at: float
    forced: bool = False
