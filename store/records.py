"""The nouns: one frozen record for each word of the design, each field with its unit.

Times are seconds since the epoch, UTC. Ids are UUIDv7 strings (sortable by time). Text that came
from a client or a model is kept as the OpenAI wire JSON it arrived in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import msgspec

from store.jsontext import JsonObject

SCHEMA_VERSION = 1

Split = Literal["train", "calibration", "heldout"]
EvaluationSplit = Literal["train", "calibration", "heldout", "frequent"]
Origin = Literal["trace", "synthetic", "seed", "correction"]
OutputKind = Literal["json", "label", "text", "tools"]
ScorerName = Literal["exact", "json", "text", "judge"]
Purpose = Literal["policy", "inputs", "answers", "noise", "judge", "audits"]
RouteName = Literal["teacher", "student", "fallback"]
Api = Literal["chat_completions", "responses", "messages", "completions", "embeddings"]
Content = Literal["full", "redacted", "none"]
SliceKind = Literal["fingerprint", "label", "call", "field"]
Step = Literal["shadow", "canary", "live"]
KindName = Literal["label", "lora"]  # of students
ExchangeKind = Literal["answer", "audit", "correction"]
ComparisonKind = Literal["shadow", "audit", "feedback"]
Command = Literal["pause", "resume", "promote", "demote", "retrain"]


class Reason(StrEnum):
    """Why a request took the way it took: the value of `x-understudy-reason`."""

    # decided before anything is sent
    UNTAGGED = "untagged"  # no task tag: always the teacher
    NO_STUDENT = "no_student"  # nothing is promoted for this task (yet)
    CERTIFIED = "certified"  # the student was certified for requests of this shape
    STUDENT_STARTING = "student_starting"  # promoted, its server is not up yet
    SHADOW = "shadow"  # the student is only compared, in the background
    NOT_IN_SHARE = "not_in_share"  # a canary: this conversation is not in the student's share yet
    DEMOTED = "demoted"  # by a detector or by hand
    PAUSED = "paused"  # the task is paused: no runs, and the teacher answers
    OTHER_FINGERPRINT = "other_fingerprint"  # another prompt, schema or teacher than certified
    TOOLS = "tools"  # the request brings tools, or what a student cannot do with them
    NOT_TEXT = "not_text"  # images, audio, files
    SEVERAL_CHOICES = "several_choices"  # n > 1
    LOGPROBS = "logprobs"  # the client wants token probabilities
    INPUT_TOO_LONG = "input_too_long"  # longer than what was certified
    TEACHER_INPUT = (
        "teacher_input"  # a frequent input that the student is known to answer otherwise
    )
    UNKNOWN_FIELD = "unknown_field"  # a request field that the student was not certified for
    OTHER_API = "other_api"  # embeddings, legacy completions: no student answers there
    NOT_REDACTED = "not_redacted"  # the redaction failed, and students know redacted requests alone
    # also after it was asked, as `fallback`
    NOT_KEPT = "not_kept"  # a student's answer cannot be kept for a client that may come back to it
    # decided after the student was asked: the route is then `fallback`
    STUDENT_DOWN = "student_down"  # no connection, or it broke
    STUDENT_ERROR = "student_error"  # an error status, or an answer that cannot be read
    STUDENT_SLOW = "student_slow"  # no answer within the time limit
    STUDENT_UNSURE = "student_unsure"  # confidence below the certified cutoff
    STUDENT_UNFAMILIAR = "student_unfamiliar"  # it says so: the input is like none it has learned
    STUDENT_CUT_OFF = "student_cut_off"  # ran into a length limit before its answer ended
    STUDENT_MALFORMED = "student_malformed"  # broke the requested or the certified output format
    STUDENT_REDACTED = "student_redacted"  # has a placeholder where the client wants the text
    TEACHER_STATE = (
        "teacher_state"  # it calls, and beside the teacher's calls is what must come back
    )
    # never a header's value: of traces that did not come through the proxy
    IMPORTED = "imported"  # imported from another system's log: the teacher answered


class Outcome(StrEnum):
    """How an exchange ended, seen from the client."""

    COMPLETE = "complete"  # the client got the whole answer
    CLIENT_GONE = "client_gone"  # the client hung up before the end
    TEACHER_BROKE = "teacher_broke"  # the teacher's answer ended before its end
    ERROR = "error"  # an error status, the teacher's or ours


class Trace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One logged request with its answer.

    A struct of msgspec, since the proxy makes and writes one per request: a frozen dataclass costs
    5 µs more (bench/records.py).
    """

    trace_id: str
    start_time: float
    end_time: float
    task: str | None  # None: untagged
    operation_name: str = "chat"  # OpenTelemetry's name: chat, text_completion, embeddings
    served_by: Literal["teacher", "student"] | None  # None: nobody answered
    route: RouteName
    reason: str  # a Reason
    outcome: str  # an Outcome
    status_code: int  # what the client got; 499 when it hung up before any status
    error_type: str | None = None  # `error.type` or `error.code` of an error answer
    stream: bool = False
    provider_name: str | None = None  # provider of the LiteLLM model string, e.g. `openai`
    request_model: str | None = None  # as the client named it
    response_model: str | None = None
    response_id: str | None = None
    student_id: str | None = None  # set when a student was asked, also on fallback
    finish_reasons: list[str] = []  # msgspec copies it
    duration_ms: float = 0.0
    time_to_first_chunk_ms: float | None = None
    student_ms: float | None = None  # the student's own time, also when it fell back
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    request_params: str = "{}"  # JSON object: the body without messages and tools
    tool_definitions: str | None = None  # JSON array
    input_messages: str = "[]"  # JSON array, OpenAI wire format
    output_messages: str | None = None  # JSON array of the choices' messages
    input_hash: str = ""  # see store.chat.shape.input_hash
    fingerprint: str = ""  # see store.chat.shape.fingerprint
    confidence: float | None = None  # of the student's answer, by its route's model
    content_bytes: int = 0  # request body + answer
    api_key_hash: str | None = None
    end_user: str | None = None  # the request's `user`
    source: str = "proxy"  # or `import:<format>`, or `litellm`: whose log it comes from
    cost_usd: float | None = None  # as that log states it; None: tokens times the price table
    api: Api = "chat_completions"  # which one the client called
    content: Content = "full"  # how much of the texts is kept; none: the client opted out
    tokens_estimated: bool = False  # the answer did not count its tokens, as most streams
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """A logged chat request, its JSON decoded."""

    messages: list[JsonObject]  # none when they are not a list of objects
    params: JsonObject  # the body without messages and tools
    tools: list[JsonObject] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedExchange:
    """A logged chat request with its answer, as it is learned from: a trace read back.

    `answer`: what the trace holds counts. `audit`: a student answered, and `replacement` is what
    the teacher answered later. `correction`: `replacement` is what a client says it should be.
    """

    trace_id: str
    kind: ExchangeKind
    asked_at: float
    answered_at: float  # when the answer was given
    request: LoggedRequest
    fingerprint: str
    input_hash: str
    model: str  # the teacher, as the client named it; empty: not known
    choices: list[JsonObject]  # the messages of the logged answer
    served_by: str | None
    status_code: int
    outcome: str  # an Outcome
    finish_reasons: list[str]
    confidence: float | None  # of a student's answer
    replacement: str = ""
    snapshot: str = ""  # the model that the teacher says has answered; empty: not known
    output_tokens: int | None = None  # of the logged answer, as its teacher counted them


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training item: a request's messages and the answer to learn."""

    example_id: str
    task: str
    run_id: str
    origin: Origin
    split: Split
    status: Literal["kept", "rejected"]
    reason: str  # why it was kept or rejected, in one word or a short sentence
    input_messages: str  # JSON array, OpenAI wire format, without the answer
    target: str  # the teacher's answer
    input_hash: str
    source_trace_id: str | None = None  # for origin `trace`
    # what stood in the prompt that it was written under: ids of traces and of other examples, and
    # that of its run for the run's policy
    parent_ids: list[str] = field(default_factory=list)
    generator_model: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCall:
    """One paid call to the teacher that served distilling, not a client."""

    call_id: str
    run_id: str
    task: str
    purpose: Purpose
    model: str
    input_tokens: int
    output_tokens: int
    at: float
    duration_ms: float


class RunState(StrEnum):
    """collected → amplified → trained → evaluated → promoted | rejected | failed."""

    COLLECTED = "collected"
    AMPLIFIED = "amplified"
    TRAINED = "trained"
    EVALUATED = "evaluated"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (RunState.PROMOTED, RunState.REJECTED, RunState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One line in the append-only history of a run."""

    run_id: str
    seq: int  # 0, 1, 2… within the run
    task: str
    state: RunState
    at: float
    seconds: float = 0.0  # duration of the stage that ended here
    reason: str = ""  # why promoted, rejected or failed
    detail: JsonObject = field(default_factory=dict)  # the stage's numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Signals from the token log-probabilities of one answer, the end token included."""

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
    weights: dict[
        str, float
    ]  # by the signal's name, of its transformed value (store.chat.confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The forms of the teacher's answers. A student's answer of another form is not served.

    An empty list is no condition.
    """

    labels: list[str] = field(default_factory=list)  # every label, without space around it
    keys: list[list[str]] = field(default_factory=list)  # sorted keys of every kind of JSON object
    lists: bool = True  # whether a JSON answer may be a list
    # every function that is called; an empty name for answers in words
    calls: list[str] = field(default_factory=list)
    # placeholders of the redaction: an answer with one is useless to a client
    placeholders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStyle:
    """How the teacher writes its messages besides their text: see store.chat.style."""

    call_id: str = ""  # the template of its calls' ids; empty: not known
    fields: list[str] = field(default_factory=list)  # fields that it sends with nothing in them
    stateful_calls: bool = False  # beside its calls is what has to come back: no student has that


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsOfService:
    """What a student is evaluated with and served by, computed once per run.

    An answer that breaks them is not served: the teacher answers instead.
    """

    output: OutputKind = "text"  # the kind of the task's answers
    forms: Forms | None = None  # None: nothing is known of them, any will do
    max_tokens: int = 512  # the student's limit, well above the longest target
    timeout_s: float = 10.0  # until the whole answer is there
    cutoff: float | None = None  # lowest confidence that may be served; None: all is served
    confidence: ConfidenceModel | None = None  # None: the lowest token log-probability itself
    style: MessageStyle = MessageStyle()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """A system prompt that varies from request to request: its fixed and its varying parts.

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
    """A held-out, calibration or frequent row, answered by the student and scored."""

    run_id: str
    input_hash: str
    split: EvaluationSplit  # frequent: an input that is checked by itself, whatever its split
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
    group: int | None = None  # rows of one number belong together; None: it is alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The served held-out groups of one fingerprint, or of one label of the teacher's answers.

    Labels are of one of three kinds: see store.chat.labels.
    """

    kind: SliceKind
    name: str
    n: int
    agreed: int
    p_value: float  # of the hypothesis that it agrees at least as much as the floor
    below: bool  # proven to lie below the floor: see distill.gate.slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How often the student gives a label where the teacher does, of what the student serves."""

    name: str  # see store.chat.labels
    n: int  # held-out groups with a served row to which the teacher gives the label
    agreed: float  # sum of their agreements, each the mean over these rows
    low: float  # lower bound of the recall, at the certificate's alpha, each label by itself
    protected: bool = False  # named in gate.protect


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The teacher's self-consistency: held-out rows that it was asked for again."""

    n: int
    agreed: int
    share: float
    low: float  # exact two-sided interval of the share
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeCheck:
    """How good the judge is, by rows that people have judged too."""

    n: int
    agreement: float  # share of the rows on which judge and people agree
    sensitivity: float | None  # share of the good answers that the judge calls good
    specificity: float | None  # share of the bad answers that the judge calls bad
    bias: float  # mean of (people - judge), -1..1
    bias_low: float  # its lower bound


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentInputs:
    """The inputs that are so much of the traffic that each is checked by itself."""

    inputs: int
    share: float  # of the task's requests
    served: int  # inputs on which the student agrees, and is sure enough
    served_share: float  # of the task's requests
    agreed: float  # share of those requests, by the teacher's answers that did not choose them
    lower_bound: float  # of the agreement of all that is served, these and the others, by requests


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceEntry:
    """One student kind in a run's race: what it scored on the calibration rows, and what it cost.

    Without a `coverage` it has no score: it was not trained, or it was the only one.
    """

    kind: KindName
    won: bool = False
    reason: str = ""  # why it won, or why it was not trained
    coverage: float | None = None  # the share that it is expected to be certified for
    agreement: float | None = None  # mean over the calibration groups, of all rows
    rows: int = 0  # of the calibration split that it answered
    latency_ms: float = 0.0  # of an answer, the median
    seconds: float = 0.0  # of its training
    memory_mb: float = 0.0  # the peak of its training; 0: not known
    disk_mb: float = 0.0  # the size of what it has learned
    base: str = ""  # of a kind that adapts one


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The gate's result, with everything that is needed to recompute it."""

    certificate_id: str
    task: str
    run_id: str
    method: str  # the bound's name
    scorer: ScorerName
    threshold: float  # for the lower bound
    confidence_level: float  # 1 - alpha over all attempts of the task
    attempt: int = 1  # 1, 2, 3… of this task under these fingerprints
    alpha: float = 0.05  # of this attempt: (1 - confidence_level) / (attempt * (attempt + 1))
    prior: list[float] = field(
        default_factory=list
    )  # prior of the bound's bets, see distill.gate.gate
    n: int  # held-out groups with a row at or above the cutoff
    agreed: float  # sum of their agreements, each the mean over its served rows
    rows: int = 0  # served held-out rows; 0: of before rows were grouped, as many as n
    score: float  # agreed / n
    lower_bound: float
    cutoff: float | None  # lowest confidence served; None: everything is served
    cutoffs_tested: int = 1  # in the order fixed on the calibration split
    coverage: float  # mean over the held-out groups of the share of their rows that is served
    heldout: int  # all held-out groups
    heldout_rows: int = 0  # all held-out rows; 0: of before rows were grouped, as many as heldout
    # when the oldest of the held-out groups began; None: not known, or they are of any age
    heldout_since: float | None = None
    mixed_in_time: bool = False  # other groups, which were learned from, are as new as those
    agreement_all: float  # the same mean of the agreement on all rows, served or not
    min_coverage: float
    faults: float = 0  # sum over the held-out groups of the share of answers that broke a form
    # None: no input is frequent. With it, score, lower_bound and coverage are of requests; n,
    # agreed and heldout are of the groups of the other inputs
    frequent: FrequentInputs | None = None
    slices: list[Slice] = field(default_factory=list)
    floor: float = 0.0  # agreement that no slice may lie below; 0: of before it was kept
    recalls: list[Recall] = field(default_factory=list)  # protected ones first, then the lowest
    unproven_labels: list[str] = field(default_factory=list)  # lower bound below the floor
    ceiling: Ceiling | None = None
    judge: JudgeCheck | None = None  # None with scorer `judge`: uncorrected
    fingerprints: list[str]
    race: list[RaceEntry] = field(default_factory=list)  # [] of before there were several kinds
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
    terms: TermsOfService = field(default_factory=TermsOfService)
    scorer: ScorerName = "exact"  # how its answers are compared with the teacher's
    agree_at: float = 1.0  # lowest score that counts as agreement
    max_input_chars: int = 0  # longest input that was certified
    # hashes of frequent inputs that the teacher answers (store.chat.shape.input_hash)
    teacher_inputs: list[str] = field(default_factory=list)
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
    """One live request with both answers: the student's scored against the teacher's.

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
    group_key: str | None = None  # comparisons of one key belong together: see distill.monitor


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A client's feedback on an answer: one line of the journal, one row of the store."""

    feedback_id: str
    trace_id: str
    feedback_at: float
    score: float | None = None  # 0 (bad) to 1 (good)
    correction: str | None = None  # the answer that it should have been
    feedback_key: str | None = None  # hash of the client's key


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A command by hand, append-only. The last pause or resume of a task counts."""

    action_id: str
    task: str
    command: Command
    actor: str
    reason: str
    at: float
    forced: bool = False
