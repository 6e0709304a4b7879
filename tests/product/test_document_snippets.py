"""The clients that README and manual show work against the proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.documents import all_blocks
from tests.helpers.serving import ProxyThread

INTERPRETERS = {"python": [sys.executable, "-"], "sh": ["sh", "-s"]}
# each of them once, though README and guide show the same
SNIPPETS = {
    (language, block): f"{name}-{language}"
    for language in INTERPRETERS
    for name, block in all_blocks(language)
    if "127.0.0.1:4100/v1" in block
}


def pointed_at(snippet: str, proxy: ProxyThread) -> str:
    """The snippet, asking a proxy of the tests, whose teacher has another name."""
    assert "gpt-4.1" in snippet
    return snippet.replace("http://127.0.0.1:4100", proxy.url).replace("gpt-4.1", "gpt-4o")


def test_every_kind_of_snippet_is_run() -> None:
    assert {language for language, _ in SNIPPETS} == set(INTERPRETERS)


@pytest.mark.parametrize(("language", "snippet"), SNIPPETS, ids=SNIPPETS.values())
@pytest.mark.slow
def test_the_clients_in_documents_work(language: str, snippet: str, proxy: ProxyThread) -> None:
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("no curl here")
    gives_feedback = "/feedback" in snippet
    subprocess.run(
        INTERPRETERS[language],
        input=pointed_at(snippet, proxy),
        text=True,
        check=True,
        timeout=60,
        capture_output=True,
        env={**os.environ, "OPENAI_API_KEY": "none"},
    )
    trace, *feedback = proxy.wait_for_traces(2 if gives_feedback else 1)
    assert trace["task"] == "triage"
    assert trace["outcome"] == "complete"
    assert [line["trace_id"] for line in feedback] == [trace["trace_id"]] * gives_feedback


def test_the_javascript_client_says_the_same_as_the_others() -> None:
    [(_, snippet)] = all_blocks("js")
    assert 'baseURL: "http://127.0.0.1:4100/v1"' in snippet
    assert '"X-Understudy-Task": "triage"' in snippet
