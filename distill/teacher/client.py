"""Every call to the teacher that serves distilling: paid for, counted, and held to a budget.

Structured answers come by way of `instructor` as one forced tool call. Of its modes that is the one
which most endpoints understand, and LiteLLM translates it for all of its providers.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import orjson
from pydantic import BaseModel

from distill.dataset.exchange import target_in_message
from store.chat.shape import Messages, text_of
from store.errors import BudgetSpent, TeacherError, TeacherMalformed, TeacherRefused
from store.ids import new_id
from store.records import (
    Purpose,
    TeacherCall,
)

if TYPE_CHECKING:  # the control plane starts in half the time without it
    import openai
    from openai.types.chat import ChatCompletion

CLIENT_RETRIES = 3  # the OpenAI client's own: connection errors, 408, 409, 429 and 5xx
VALIDATION_RETRIES = 2  # instructor's, each shown what was wrong
CHARS_A_TOKEN = 3  # a careful guess: hardly a text has more tokens than that
# output tokens expected of a call, until one with the same purpose was longer
EXPECTED_OUTPUT: Mapping[Purpose, int] = {
    "policy": 800,
    "inputs": 800,
    "answers": 64,
    "noise": 64,
    "judge": 128,
    "audits": 64,
}
# what to lower when a call of this purpose is too much
_LOWER: Mapping[Purpose, str] = {"judge": "evaluate.max_rows", "noise": "evaluate.teacher_recheck"}
# statuses that speak of our access; any other 4xx is about the one request
_ABOUT_ACCESS = (401, 402, 403, 408, 409, 429)
_ERROR_CODE = re.compile(r"[a-z0-9_.-]{1,64}")

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call took."""

    input: int = 0
    output: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.input + other.input, self.output + other.output)


@dataclass(frozen=True, slots=True)
class Answer:
    """The teacher's answer to a production prompt."""

    text: (
        str | None
    )  # as a student should give it (distill.dataset.exchange); None: it refused, or called
    finish_reason: str
    tokens: Tokens

    @property
    def whole(self) -> bool:
        """Whether it says something and came to its own end."""
        ended = self.finish_reason in ("stop", "tool_calls")
        return ended and bool((self.text or "").strip())


@dataclass(frozen=True, slots=True)
class Structured(Generic[Schema]):
    """A structured answer, with the tokens of all the attempts that it took."""

    value: Schema
    tokens: Tokens


class TeacherClient:
    """The teacher's endpoint, for one run of one task, or for the audits of its student.

    `record` hears of every call that was answered, and so paid for, also of one whose answer was
    no good. `spent` counts their tokens; whoever resumes a run adds what it had spent before.
    `token_budget` None: as many as it takes.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str,
        *,
        record: Callable[[TeacherCall], None],
        run_id: str,
        task: str,
        token_budget: int | None,
        timeout_s: float = 300,
    ) -> None:
        import openai  # noqa: PLC0415 - slow to import

        # they log prompts and answers: instructor when validation fails, openai when debugging
        logging.getLogger("instructor").setLevel(logging.CRITICAL + 1)
        logging.getLogger("openai").setLevel(logging.WARNING)
        self.model = model
        self.spent = 0  # tokens, input and output
        self._reserved = 0  # tokens that the calls under way are expected to take
        self._budget = token_budget
        self._record = record
        self._run_id = run_id
        self._task = task
        self._longest_output = dict(EXPECTED_OUTPUT)
        self._refuses_temperature = False
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",  # it insists on one
            max_retries=CLIENT_RETRIES,
            timeout=openai.Timeout(timeout_s, connect=10),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def answer(
        self, messages: Messages, params: Mapping[str, Any], purpose: Purpose = "answers"
    ) -> Answer:
        """Asks a production prompt, with the request's own parameters and tools.

        Raises BudgetSpent before a call that the budget does not allow, TeacherRefused when the
        teacher refuses this request, TeacherError when it cannot be used at all.
        """
        completion, tokens = await self._paid(purpose, messages, dict(params))
        if not completion.choices:
            raise TeacherMalformed("the teacher's answer has no choices")
        choice = completion.choices[0]
        refused = bool(choice.message.refusal)
        text = None if refused else target_in_message(choice.message.model_dump(), params) or None
        return Answer(
            # half of a surrogate pair is valid JSON, and cannot be written to any file
            text=None if text is None else text.encode("utf-8", "replace").decode(),
            finish_reason=choice.finish_reason or "",
            tokens=tokens,
        )

    async def structured(
        self,
        purpose: Purpose,
        schema: type[Schema],
        messages: Messages,
        params: Mapping[str, Any] | None = None,
    ) -> Structured[Schema]:
        """Asks for an answer of this schema. An invalid one is asked again, with what was wrong.

        Raises TeacherMalformed when it is still invalid then, and what `answer` raises.
        """
        import instructor  # noqa: PLC0415 - slow to import
        from instructor.core.exceptions import (  # noqa: PLC0415
            IncompleteOutputException,
            InstructorRetryException,
        )

        total = Tokens()

        async def create(*, messages: Messages, **kwargs: Any) -> ChatCompletion:
            nonlocal total
            completion, tokens = await self._paid(purpose, messages, kwargs)
            total += tokens
            return completion

        ask: Any = instructor.patch(create=create, mode=instructor.Mode.TOOLS)
        try:
            found = await ask(
                response_model=schema,
                messages=messages,
                max_retries=VALIDATION_RETRIES,
                strict=False,  # "12" for 12 is not worth another call
                **(params or {}),
            )
        except (InstructorRetryException, IncompleteOutputException) as failed:
            if isinstance(failed.__cause__, TeacherError):
                raise failed.__cause__ from None
            raise TeacherMalformed(
                f"the teacher gave no valid {schema.__name__} in {1 + VALIDATION_RETRIES} attempts"
            ) from None
        # without what instructor hangs on to it: a class of its own and the raw response
        return Structured(schema.model_validate(found.model_dump()), total)

    async def _paid(
        self, purpose: Purpose, messages: Messages, params: dict[str, Any]
    ) -> tuple[ChatCompletion, Tokens]:
        """One call: allowed by the budget before, recorded afterwards."""
        expected = _request_tokens(messages, params) + self._longest_output[purpose]
        allowed = math.inf if self._budget is None else self._budget
        if self.spent + self._reserved + expected > allowed:
            raise BudgetSpent(
                f"{self.spent} of {self._budget} tokens are spent and the next call for {purpose} "
                f"may take {expected}: raise amplify.token_budget or lower "
                f"{_LOWER.get(purpose, 'amplify.target')}"
            )
        import openai  # noqa: PLC0415 - slow to import

        self._reserved += expected
        began, at = time.perf_counter(), time.time()
        try:
            completion = await self._ask(messages, params)
        except openai.APIError as error:
            raise _as_teacher_error(error, purpose) from None
        finally:
            self._reserved -= expected
        tokens = _tokens_of(completion) or _guessed_tokens(completion, messages, params)
        self.spent += tokens.input + tokens.output
        self._longest_output[purpose] = max(self._longest_output[purpose], tokens.output)
        self._record(
            TeacherCall(
                call_id=new_id(),
                run_id=self._run_id,
                task=self._task,
                purpose=purpose,
                model=self.model,
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                at=at,
                duration_ms=(time.perf_counter() - began) * 1000,
            )
        )
        return completion, tokens

    async def _ask(self, messages: Messages, params: dict[str, Any]) -> ChatCompletion:
        """One request. Reasoning models refuse a temperature; it is left out from then on."""
        import openai  # noqa: PLC0415 - slow to import

        if self._refuses_temperature:
            params = _without_temperature(params)
        try:
            return await self._send(messages, params)
        except openai.BadRequestError as error:
            if error.param != "temperature" or "temperature" not in params:
                raise
            self._refuses_temperature = True
            return await self._send(messages, _without_temperature(params))

    async def _send(self, messages: Messages, params: dict[str, Any]) -> ChatCompletion:
        from openai.types.chat import ChatCompletion  # noqa: PLC0415 - slow to import

        try:
            completion = await self._client.chat.completions.create(
                model=self.model,
                messages=messages,  # type: ignore[arg-type]  # the wire format itself
                extra_body=params,
            )
        except ValueError:  # a body that says it is JSON, and is not
            completion = None
        if not isinstance(completion, ChatCompletion):
            raise TeacherError("the teacher's endpoint does not speak OpenAI's API: check api_base")
        return completion


def _without_temperature(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "temperature"}


def _tokens_of(completion: ChatCompletion) -> Tokens | None:
    """What the endpoint says that the call took; None when it does not count."""
    usage = completion.usage
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    return Tokens(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _guessed_tokens(
    completion: ChatCompletion, messages: Messages, params: Mapping[str, Any]
) -> Tokens:
    said = "".join(choice.message.model_dump_json() for choice in completion.choices or [])
    return Tokens(_request_tokens(messages, params), _text_tokens(said))


def _request_tokens(messages: Messages, params: Mapping[str, Any]) -> int:
    said = sum(_text_tokens(text_of(m.get("content"))) for m in messages)
    return said + _text_tokens(orjson.dumps(dict(params), default=str).decode())


def _text_tokens(text: str) -> int:
    # a letter of most scripts beyond Latin is a token of its own, near enough
    wide = sum(ord(letter) > 0x2E7F for letter in text)
    return wide + math.ceil((len(text) - wide) / CHARS_A_TOKEN)


def _as_teacher_error(error: openai.APIError, purpose: Purpose) -> TeacherError:
    """Our error for the OpenAI client's, without its message: that may quote the request."""
    import openai  # noqa: PLC0415 - slow to import

    if not isinstance(error, openai.APIStatusError):
        return TeacherError(
            f"the teacher cannot be reached for {purpose}: {type(error).__name__}; check api_base"
        )
    code = str(error.code or "")
    named = f" ({code})" if _ERROR_CODE.fullmatch(code) else ""
    said = f"the teacher answered a call for {purpose} with status {error.status_code}{named}"
    about_request = error.status_code < 500 and error.status_code not in _ABOUT_ACCESS
    return TeacherRefused(said) if about_request else TeacherError(said)
