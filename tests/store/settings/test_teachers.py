"""The endpoint of each model name, and its price."""

from __future__ import annotations

from typing import Any

import pytest

from store.errors import ConfigError
from store.settings.config import Config, parse_config
from store.settings.teachers import (
    OPENAI_BASE_URL,
    Price,
    TeacherPool,
    deployments,
    needs_litellm,
    price_of,
    prices,
    teacher_pool,
)

SECRET = "sk-live-0123456789"
LOCAL = "http://127.0.0.1:8000/v1"
CHILD = {"litellm_url": "http://127.0.0.1:9999/v1/", "litellm_key": "sk-child"}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def config(*entries: dict[str, Any], **more: Any) -> Config:
    return parse_config({"model_list": list(entries), **more})


def local(name: str, model: str = "openai/local", **params: Any) -> dict[str, Any]:
    return entry(name, model, api_base=LOCAL, api_key=SECRET, **params)


# ---- directly, or through LiteLLM --------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "direct"),
    [
        (entry("a", "openai/gpt-4o", api_key="k"), True),
        (entry("a", "openai/anything", api_base=LOCAL, api_key="k"), True),
        (entry("a", "openai/anything", base_url=LOCAL, api_key="k"), True),
        (entry("a", "gpt-4o", api_key="k"), True),  # OpenAI's by LiteLLM's own table
        (entry("a", "openai/x", api_key="k", input_cost_per_token=1e-6), True),
        (entry("*", "openai/*", api_key="k"), True),
        (entry("a", "anthropic/claude-3-5-haiku-latest", api_key="k"), False),
        (entry("a", "claude-3-5-haiku-latest", api_key="k"), False),
        (entry("a", "azure/gpt-4o", api_key="k", api_base=LOCAL), False),
        (entry("a", "nobody-knows-this"), False),
        (entry("a", "openai/gpt-4o", api_key="k", temperature=0), False),  # LiteLLM's to apply
        (entry("a", "openai/gpt-4o", api_key="k", rpm=5), False),
    ],
)
def test_only_plain_openai_deployments_are_called_directly(
    made: dict[str, Any], direct: bool
) -> None:
    found = config(made)
    assert needs_litellm(found) is not direct
    (deployment,) = deployments(found, **CHILD)
    assert deployment.direct is direct
    if not direct:
        assert (deployment.base_url, deployment.api_key) == ("http://127.0.0.1:9999/v1", "sk-child")
        assert deployment.upstream_model == made["model_name"]  # the child resolves it


@pytest.mark.parametrize(
    "block",
    [
        {"litellm_settings": {"num_retries": 2}},
        {"router_settings": {"routing_strategy": "least-busy"}},
        {"general_settings": {"master_key": "k"}},
        {"environment_variables": {"A": "b"}},
        {"callback_settings": {"x": 1}},
    ],
)
def test_litellms_settings_need_litellm(block: dict[str, Any]) -> None:
    assert needs_litellm(config(local("a"), **block))
    assert not needs_litellm(config(local("a"), **dict.fromkeys(block)))


def test_direct_and_litellm_deployments_can_be_mixed() -> None:
    found = config(local("a"), entry("b", "anthropic/claude-3-5-haiku-latest"))
    assert needs_litellm(found)
    one, other = deployments(found, **CHILD)
    assert (one.direct, one.base_url, one.provider) == (True, LOCAL, "openai")
    assert (other.direct, other.provider) == (False, "anthropic")


# ---- addresses and keys ------------------------------------------------------------------------


def test_openai_is_the_default_address() -> None:
    (found,) = deployments(config(entry("a", "openai/gpt-4o", api_key=SECRET)))
    assert (found.base_url, found.upstream_model, found.api_key) == (
        OPENAI_BASE_URL,
        "gpt-4o",
        SECRET,
    )


def test_an_address_loses_its_last_slash() -> None:
    (found,) = deployments(config(entry("a", "openai/x", api_base=LOCAL + "/")))
    assert (found.base_url, found.api_key) == (LOCAL, None)  # a local endpoint may need no key


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(entry("a", "openai/gpt-4o", api_key="os.environ/TEACHER_KEY"))
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    assert deployments(made)[0].api_key == SECRET
    monkeypatch.setenv("OPENAI_API_KEY", "sk-default")
    assert deployments(config(entry("a", "openai/gpt-4o")))[0].api_key == "sk-default"


def test_a_teachers_key_with_a_line_end_is_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(entry("a", "openai/gpt-4o", api_key="os.environ/TEACHER_KEY"))
    monkeypatch.setenv("TEACHER_KEY", f"{SECRET}\r\n")
    assert deployments(made)[0].api_key == SECRET


@pytest.mark.parametrize("key", [f"{SECRET}\nx: y", f"{SECRET}\0", " \n"])
def test_a_teachers_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(
        ConfigError, match=r"model_list\[0\] \(a\).litellm_params.api_key"
    ) as caught:
        deployments(config(entry("a", "openai/gpt-4o", api_key=key)))
    assert SECRET not in str(caught.value)


def test_a_missing_key_is_reported_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    made = config(local("a"), entry("b", "openai/gpt-4o", api_key="os.environ/TEACHER_KEY"))
    with pytest.raises(ConfigError, match=r"model_list\[1\] \(b\).*TEACHER_KEY is not set"):
        deployments(made)
    with pytest.raises(ConfigError, match=r"model_list\[0\] \(a\): no api_key, and OPENAI_API_KEY"):
        deployments(config(entry("a", "openai/gpt-4o")))


def test_a_key_is_never_shown() -> None:
    pool = teacher_pool(config(local("a")))
    assert SECRET not in repr(pool.deployments) + str(pool.deployments[0]) + repr(pool.choose("a"))


# ---- choosing ----------------------------------------------------------------------------------


def test_deployments_of_one_name_take_turns() -> None:
    pool = teacher_pool(
        config(
            entry("a", "openai/one", api_base=LOCAL),
            entry("b", "openai/other", api_base=LOCAL),
            entry("a", "openai/two", api_base=LOCAL),
        )
    )
    turns = [pool.choose(name) for name in ("a", "b", "a", "a", "b", "a")]
    assert [t.upstream_model for t in turns if t] == ["one", "other", "two", "one", "other", "two"]


def test_an_exact_name_goes_before_a_wildcard_and_the_first_wildcard_wins() -> None:
    pool = teacher_pool(
        config(
            entry("*", "openai/*", api_base=LOCAL),
            entry("fast/*", "openai/never", api_base=LOCAL),
            entry("fast/one", "openai/exact", api_base=LOCAL),
        )
    )

    def upstream(name: str) -> str | None:
        found = pool.choose(name)
        return found.upstream_model if found else None

    assert upstream("fast/one") == "exact"
    assert upstream("fast/two") == "fast/two"
    assert upstream("anything") == "anything"


@pytest.mark.parametrize(
    ("pattern", "model", "upstream", "asked", "gets"),
    [
        ("openai/*", "openai/*", True, "openai/gpt-4o", "gpt-4o"),
        ("my-*", "openai/gpt-*", True, "my-4o", "gpt-4o"),
        ("my-*-chat", "openai/*", True, "my-4o-chat", "4o"),
        ("my-*-chat", "openai/*", True, "my-chat", None),  # the two ends overlap
        ("openai/*", "openai/*", True, "azure/gpt", None),
        ("claude/*", "anthropic/*", False, "claude/opus", "claude/opus"),  # the child resolves it
    ],
)
def test_a_wildcard_carries_the_rest_of_the_name(
    pattern: str, model: str, upstream: bool, asked: str, gets: str | None
) -> None:
    made = entry(pattern, model, **({"api_base": LOCAL} if upstream else {}))
    found = teacher_pool(config(made), **CHILD).choose(asked)
    assert (found.upstream_model if found else None) == gets
    if found:
        assert (found.model_name, found.direct) == (asked, upstream)


def test_names_for_clients_are_listed_once_and_without_wildcards() -> None:
    pool = teacher_pool(config(local("a"), local("b"), local("a"), local("x/*")))
    assert pool.model_names == ["a", "b"]
    assert pool.choose("c") is None


def test_the_default_is_the_first_or_the_named_one() -> None:
    entries = (local("a"), local("b"))
    assert teacher_pool(config(*entries)).default == "a"
    assert teacher_pool(config(*entries, teacher={"model": "b"})).default == "b"
    assert TeacherPool(deployments(config(*entries)), None).default == "a"


# ---- prices ------------------------------------------------------------------------------------


def test_a_price_is_the_configs_or_the_tables_or_unknown() -> None:
    found = prices(
        config(
            local("stated", input_cost_per_token=1e-6, output_cost_per_token=4e-6),
            local("half", output_cost_per_token=4e-6),
            {**local("info"), "model_info": {"input_cost_per_token": "2e-6"}},
            entry("table", "openai/gpt-4o-mini", api_key="k"),
            local("unknown", model="openai/nobody-knows-this"),
        )
    )
    assert found["stated"] == Price(1e-6, 4e-6)
    assert found["half"] == Price(0.0, 4e-6)
    assert found["info"] == Price(2e-6, 0.0)
    assert 0 < found["table"].input < found["table"].output
    assert "unknown" not in found


def test_the_first_of_one_name_sets_the_price() -> None:
    found = prices(config(local("a", input_cost_per_token=1), local("a", input_cost_per_token=2)))
    assert found == {"a": Price(1.0, 0.0)}


def test_the_price_of_a_name_among_wildcards() -> None:
    table = {"a/*": Price(1, 1), "*": Price(2, 2), "a/b": Price(3, 3)}
    assert price_of(table, "a/b") == Price(3, 3)
    assert price_of(table, "a/c") == Price(1, 1)
    assert price_of(table, "z") == Price(2, 2)
    assert price_of({"a/*": Price(1, 1)}, "z") is None
    assert price_of({}, "z") is None
