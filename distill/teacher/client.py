"""The client for all calls to the teacher made for distillation: counted, and held to a budget.

Structured answers come through `instructor` as one forced tool call. Most endpoints understand this
mode, and LiteLLM translates it for all of its providers.
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
from store.jsontext import JsonMapping, JsonObject
from store.records import (
    Purpose,
    TeacherCall,
)

if TYPE_CHECKING:  # the control plane starts in half the time without it
    import openai
    from openai.types.chat import ChatCompletion

CLIENT_RETRIES = 3  # the OpenAI client's own: connection errors, 408, 409, 429 and 5xx
VALIDATION_RETRIES = 2  # instructor's, each shown what was wrong
CHARS_A_TOKEN = 3  # a cautious estimate: few texts have more tokens than that
# output tokens reserved for a call, until one with the same purpose was longer
EXPECTED_OUTPUT: Mapping[Purpose, int] = {
    "policy": 800,
    "inputs": 800,
    "answers": 64,
    "noise": 64,
    "judge": 128,
    "audits": 64,
}
# the setting to lower when the budget does not allow a call of this purpose
_LOWER: Mapping[Purpose, str] = {"judge": "evaluate.max_rows", "noise": "evaluate.teacher_recheck"}
# statuses about our access; any other 4xx is about the one request
_ABOUT_ACCESS = (401, 402, 403, 408, 409, 429)
_ERROR_CODE = re.compile(r"[a-z0-9_.-]{1,64}")

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a call."""

    input: int = 0
    output: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.input + other.input, self.output + other.output)


@dataclass(frozen=True, slots=True)
class Answer:
    """The teacher's answer to a production prompt."""

    # as a student should give it (distill.dataset.exchange); None: a refusal, or unlearnable calls
    text: str | None
    finish_reason: str
    tokens: Tokens

    @property
    def whole(self) -> bool:
        """Whether it is not empty and was not cut off."""
        ended = self.finish_reason in ("stop", "tool_calls")
        return ended and bool((self.text or "").strip())


@dataclass(frozen=True, slots=True)
class Structured(Generic[Schema]):
    """A structured answer, with the tokens of all attempts."""

    value: Schema
    tokens: Tokens


def import_libraries() -> None:
    """Imports what asking a teacher needs.

    It takes a second of the processor's time, and seconds on a busy machine: in a thread, so that
    the event loop of who asks goes on meanwhile.
    """
    import instructor.core.exceptions  # noqa: F401, PLC0415 - slow to import
    import openai.resources  # noqa: F401, PLC0415 - slow to import


class TeacherClient:
    """The teacher's endpoint, for one run of one task, or for the audits of its student.

    `record` is called with every call that was answered, and so paid for, also when its answer was
    unusable. `spent` counts their tokens; a resumed run adds those of its earlier starts.
    `token_budget` None: no limit.
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

        # both log prompts and answers: instructor when validation fails, openai when debugging
        logging.getLogger("instructor").setLevel(logging.CRITICAL + 1)
        logging.getLogger("openai").setLevel(logging.WARNING)
        self.model = model
        self.spent = 0  # tokens, input and output
        self._reserved = 0  # tokens expected for the calls that are running
        self._budget = token_budget
        self._record = record
        self._run_id = run_id
        self._task = task
        self._longest_output = dict(EXPECTED_OUTPUT)
        self._refuses_temperature = False
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",  # the client requires one
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
        self, messages: Messages, params: JsonMapping, purpose: Purpose = "answers"
    ) -> Answer:
        """Asks a production prompt, with the request's own parameters and tools.

        Raises BudgetSpent instead of making a call that the budget does not allow, TeacherRefused
        when the teacher refuses this request, TeacherError when the teacher cannot be used at all.
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
        params: JsonMapping | None = None,
    ) -> Structured[Schema]:
        """Asks for an answer of this schema. After an invalid one it asks again, with the error.

        Raises TeacherMalformed when the answer is still invalid then, and the errors of `answer`.
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
            value = await ask(
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
        # a plain value: instructor's has a class of its own and holds the raw response
        return Structured(schema.model_validate(value.model_dump()), total)

    async def _paid(
        self, purpose: Purpose, messages: Messages, params: JsonObject
    ) -> tuple[ChatCompletion, Tokens]:
        """One call: checked against the budget before, recorded afterwards."""
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

    async def _ask(self, messages: Messages, params: JsonObject) -> ChatCompletion:
        """One request. Reasoning models refuse a temperature; after that none is sent."""
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

    async def _send(self, messages: Messages, params: JsonObject) -> ChatCompletion:
        from openai.types.chat import ChatCompletion  # noqa: PLC0415 - slow to import

        try:
            completion = await self._client.chat.completions.create(
                model=self.model,
                messages=messages,  # type: ignore[arg-type]  # the wire format itself
                extra_body=params,
            )
        except ValueError:  # a body that is declared as JSON and is not
            completion = None
        if not isinstance(completion, ChatCompletion):
            raise TeacherError("the teacher's endpoint does not speak OpenAI's API: check api_base")
        return completion


def _without_temperature(params: JsonObject) -> JsonObject:
    return {name: value for name, value in params.items() if name != "temperature"}


def _tokens_of(completion: ChatCompletion) -> Tokens | None:
    """The tokens of the call by the endpoint's count; None when it does not count."""
    usage = completion.usage
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    return Tokens(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _guessed_tokens(completion: ChatCompletion, messages: Messages, params: JsonMapping) -> Tokens:
    answer = "".join(choice.message.model_dump_json() for choice in completion.choices or [])
    return Tokens(_request_tokens(messages, params), _text_tokens(answer))


def _request_tokens(messages: Messages, params: JsonMapping) -> int:
    prompt = sum(_text_tokens(text_of(m.get("content"))) for m in messages)
    return prompt + _text_tokens(orjson.dumps(dict(params), default=str).decode())


def _text_tokens(text: str) -> int:
    # in most scripts beyond Latin a letter is about one token
    wide = sum(ord(letter) > 0x2E7F for letter in text)
    return wide + math.ceil((len(text) - wide) / CHARS_A_TOKEN)


def _as_teacher_error(error: openai.APIError, purpose: Purpose) -> TeacherError:
    """Our error for the OpenAI client's, without its message, which may quote the request."""
    import openai  # noqa: PLC0415 - slow to import

    if not isinstance(error, openai.APIStatusError):
        return TeacherError(
            f"the teacher cannot be reached for {purpose}: {type(error).__name__}; check api_base"
        )
    code = str(error.code or "")
    named = f" ({code})" if _ERROR_CODE.fullmatch(code) else ""
    message = f"the teacher answered a call for {purpose} with status {error.status_code}{named}"
    about_request = error.status_code < 500 and error.status_code not in _ABOUT_ACCESS
    return TeacherRefused(message) if about_request else TeacherError(message)
