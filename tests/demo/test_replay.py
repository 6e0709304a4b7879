"""The replay teacher over real HTTP: recorded answers, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import openai
import pytest

from demo.backtest.logs import Layout, LogRow, lay_out
from demo.backtest.plan import run_settings
from demo.backtest.replay import MODEL, Phase, ReplayTeacher, policy_of, tokens_of
from distill.amplify.diversity import BatchPlan, InputSpec, SyntheticInputs, inputs_prompt
from distill.amplify.policy import TaskPolicy, extract_policy, policy_prompt
from distill.dataset.rows import Row
from distill.teacher.client import TeacherClient
from store.chat.shape import Messages, input_hash
from store.errors import BacktestError
from store.records import TeacherCall
from store.settings.tasks import EvaluateSettings, TaskSettings

SYSTEM = "Say which way round it goes."
POOL = [f"pool text {i}" for i in range(5)]


def messages(text: str, system: str = SYSTEM) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def log_row(text: str, answer: str, system: str = SYSTEM) -> LogRow:
    return LogRow(messages(text, system), answer)


def layout() -> Layout:
    traffic = [log_row(f"sent {i}", "left" if i % 2 else "right") for i in range(12)]
    pool = [log_row(text, "left") for text in POOL]
    return lay_out([*traffic, *pool], test=[log_row("tested", "right")], limit=12)


def rows(count: int = 12, system: str = SYSTEM) -> list[Row]:
    """Rows as a run would have collected them from the traffic."""
    return [
        Row(
            trace_id=str(i),
            input_hash=input_hash(messages(f"sent {i}", system)),
            split="train",
            fingerprint="f",
            model=MODEL,
            messages=messages(f"sent {i}", system),
            params={},
            target="left" if i % 2 else "right",
        )
        for i in range(count)
    ]


@pytest.fixture
async def teacher() -> ReplayTeacher:
    return ReplayTeacher(layout())


@pytest.fixture
async def url(teacher: ReplayTeacher) -> AsyncIterator[str]:
    async with teacher.server() as server:
        yield server.base_url


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def distilling(url: str) -> AsyncIterator[TeacherClient]:
    calls: list[TeacherCall] = []
    async with TeacherClient(
        url, None, MODEL, record=calls.append, run_id="r", task="t", token_budget=10**6
    ) as found:
        yield found


def asked_for(count: int, shown: Sequence[Row]) -> Messages:
    policy = policy_of(policy_prompt(shown)[1]["content"])
    specs = [InputSpec(1, 20, "easy", "left")] * count
    return inputs_prompt(BatchPlan(list(shown[:3]), specs, ["an earlier one"]), policy)


async def ask(client: openai.AsyncOpenAI, asked: Messages) -> str | None:
    answer = await client.chat.completions.create(model=MODEL, messages=asked)  # type: ignore[arg-type]
    return answer.choices[0].message.content


@pytest.mark.slow
async def test_recorded_messages_get_the_recorded_answer(client: openai.AsyncOpenAI) -> None:
    assert await ask(client, messages("sent 1")) == "left"
    assert await ask(client, messages("tested")) == "right"
    parts = [{"type": "text", "text": "sent 1"}]
    assert await ask(client, [messages("x")[0], {"role": "user", "content": parts}]) == "left"


@pytest.mark.parametrize(
    "unknown",
    [
        messages("never sent"),
        messages("SENT 1"),
        messages("sent 1", system="Another prompt."),
        [*messages("sent 1"), {"role": "assistant", "content": "left"}],
        messages("sent 1")[1:],
    ],
)
async def test_a_request_that_was_not_recorded_is_a_404(
    client: openai.AsyncOpenAI, teacher: ReplayTeacher, unknown: Messages
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await ask(client, unknown)
    assert caught.value.code == "answer_not_recorded"
    assert teacher.ledger["unknown"].requests == 1
    assert teacher.ledger["traffic"].requests == 0


async def test_a_streamed_answer_is_the_same(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=messages("sent 0"),  # type: ignore[arg-type]
        stream=True,
    )
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert text == "right"


async def test_the_ledger_counts_by_purpose_what_usage_says(
    client: openai.AsyncOpenAI, teacher: ReplayTeacher
) -> None:
    expected = tokens_of(messages("sent 1"), "left")
    # 28 characters and 6 characters, each with the four tokens of its message; 4 characters
    assert expected == (7 + 4 + 2 + 4, 1)
    for phase in Phase:
        teacher.phase = phase
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=messages("sent 1"),  # type: ignore[arg-type]
        )
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == expected
        tally = teacher.ledger[phase]
        assert (tally.requests, tally.input_tokens, tally.output_tokens) == (1, *expected)


@pytest.mark.slow
async def test_synthetic_inputs_are_those_of_the_pool_each_once(
    distilling: TeacherClient, teacher: ReplayTeacher
) -> None:
    found = []
    for expected in (3, 2, 0):
        answer = await distilling.structured("inputs", SyntheticInputs, asked_for(3, rows()))
        assert len(answer.value.inputs) == expected
        found += answer.value.inputs
    assert found == POOL
    assert teacher.ledger["inputs"].requests == 3
    answered = await distilling.answer(messages(found[0]), {})
    assert answered.text == "left"


async def test_inputs_of_another_production_prompt_are_not_given(
    distilling: TeacherClient,
) -> None:
    for system in ("Another prompt.", ""):
        answer = await distilling.structured(
            "inputs", SyntheticInputs, asked_for(3, rows(system=system))
        )
        assert answer.value.inputs == []


async def test_inputs_are_found_under_a_prompt_too_long_to_be_shown_whole() -> None:
    system = "Mind this. " * 400
    log = lay_out(
        [log_row("sent", "a", system), log_row("pooled", "b", system)],
        test=[log_row("tested", "c", system)],
        limit=1,
    )
    prompt = asked_for(2, rows(system=system))[1]["content"]
    assert system not in prompt
    teacher = ReplayTeacher(log)
    assert teacher.inputs_for(prompt) == ["pooled"]


async def test_only_rows_of_one_turn_become_synthetic_inputs() -> None:
    turns = [
        *messages("first"),
        {"role": "assistant", "content": "left"},
        {"role": "user", "content": "pooled"},
    ]
    log = lay_out([log_row("sent", "a"), LogRow(turns, "b")], test=[log_row("t", "c")], limit=1)
    assert len(log.pool) == 1
    assert ReplayTeacher(log).inputs_for(asked_for(2, rows())[1]["content"]) == []


async def test_the_policy_says_what_the_request_shows(
    distilling: TeacherClient, teacher: ReplayTeacher
) -> None:
    policy = await extract_policy(distilling, rows())
    assert isinstance(policy, TaskPolicy)
    assert (policy.input_length_range.minimum, policy.input_length_range.maximum) == (6, 7)
    assert (policy.output_length_range.minimum, policy.output_length_range.maximum) == (4, 5)
    assert policy.output_format == "text of 4 to 5 characters"
    assert policy.examples_summary == "12 examples with 2 different answers"
    assert teacher.ledger["policy"].requests == 1


@pytest.mark.parametrize(
    ("answers", "form"),
    [
        (['{"b": 1, "a": 2}', '{"a": 1}'], "a JSON object with at least the keys a"),
        (['{"b": 1}', '{"a": 1}'], "a JSON object with at least the keys (none)"),
        (["[1]", "[]"], "a JSON array"),
        (['{"a": 1}', "text"], "text of 4 to 8 characters"),
    ],
)
def test_the_policy_names_the_form_of_the_answers(answers: list[str], form: str) -> None:
    shown = "".join(
        f"<example>\n<input>\nin\n</input>\n<answer>\n{answer}\n</answer>\n</example>\n\n"
        for answer in answers
    )
    assert policy_of(shown).output_format == form


@pytest.mark.parametrize("name", ["TaskPolicy", "SyntheticInputs", "SomethingElse"])
async def test_a_structured_call_without_examples_is_refused(
    client: openai.AsyncOpenAI, name: str
) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me."}],
            tools=[{"type": "function", "function": {"name": name, "parameters": {}}}],
            tool_choice={"type": "function", "function": {"name": name}},
        )


def test_a_backtest_neither_judges_nor_measures_self_consistency() -> None:
    settings = TaskSettings()
    assert run_settings(settings, layout()).evaluate.teacher_recheck == 0
    judged = settings.model_copy(update={"evaluate": EvaluateSettings(scorer="judge")})
    with pytest.raises(BacktestError, match=r"set evaluate\.scorer to another"):
        run_settings(judged, layout())
