"""Presidio as a finder: its own recognisers, and a small model of spaCy that is made here."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import spacy

from store.errors import ConfigError
from store.privacy.redaction import Redaction, redaction_of
from store.privacy.settings import PrivacySettings
from tests.conftest import StartProxy
from tests.helpers.teacher_server import LoopbackServer, completion, stream

PATTERNS = ["EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS"]
pytestmark = pytest.mark.filterwarnings("ignore")  # Presidio's and spaCy's own


def redaction(*rules: str, **presidio: Any) -> Redaction:
    settings = PrivacySettings.model_validate({"redact": list(rules), "presidio": presidio})
    found = redaction_of(settings)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that knows one person and one place, in place of one that was trained."""
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "London"}]
    )
    folder = tmp_path_factory.mktemp("model") / "en_made_here"
    pipeline.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def patterns() -> Redaction:
    return redaction(entities=PATTERNS)


@pytest.fixture(scope="module")
def names(model: Path) -> Redaction:
    return redaction("email", entities=["PERSON", "LOCATION"], model=str(model))


SAID = "Mail ada@example.org, card 4111 1111 1111 1111, from 192.168.0.1."


def test_patterns_are_found_without_a_model(patterns: Redaction) -> None:
    redacted = "Mail <EMAIL_ADDRESS>, card <CREDIT_CARD>, from <IP_ADDRESS>."
    assert patterns.text(SAID) == redacted
    assert patterns.text(redacted) is redacted
    assert json.loads(patterns.text(json.dumps({"é": SAID}))) == {"é": redacted}
    assert patterns.slow


@pytest.mark.slow
def test_presidio_does_not_use_the_network(
    patterns: Redaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Presidio checks an address by its domain, and would fetch the newest list of domains."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("it asks the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert patterns.text("x@example.co.uk") == "<EMAIL_ADDRESS>"


@pytest.mark.slow
def test_names_are_found_with_a_model_beside_the_rules(names: Redaction) -> None:
    said = "Österreich: Ada Lovelace (ada@example.org) of London"
    assert names.text(said) == "Österreich: <PERSON> (<EMAIL>) of <LOCATION>"
    request = {"model": "m", "messages": [{"role": "user", "name": "Ada Lovelace", "content": "x"}]}
    assert names.view(request)["messages"][0]["name"] == "<PERSON>"


def test_results_below_the_score_are_ignored() -> None:
    said = "call 212-555-5555"
    assert redaction(entities=["PHONE_NUMBER"], score=0.4).text(said) == "call <PHONE_NUMBER>"
    assert redaction(entities=["PHONE_NUMBER"], score=0.9).text(said) == said


@pytest.mark.parametrize(
    ("presidio", "said"),
    [
        ({"entities": ["PERSON"]}, "names and places need privacy.presidio.model"),
        ({"entities": ["EMAIL_ADDRES"]}, "finds no EMAIL_ADDRES, but"),
        ({"entities": ["PERSON"], "model": "en_core_web_xx"}, "python -m spacy download"),
    ],
)
def test_unsupported_settings_are_refused_at_the_start(presidio: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        redaction(**presidio)


@pytest.mark.slow
def test_the_proxy_redacts_with_presidio(
    start_proxy: StartProxy, teacher: LoopbackServer, model: Path
) -> None:
    presidio = {"entities": ["PERSON", "EMAIL_ADDRESS"], "model": str(model)}
    proxy = start_proxy(privacy={"presidio": presidio})
    said = "Ada Lovelace, ada@example.org"
    teacher.script(
        completion(said),
        stream(f"it is {said}"),
        stream(f"it is {said} and more").broken(after=6),
        stream(f"it is {said} and more and more").paced(0.2),
    )
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": said}]}
    url = f"{proxy.base_url}/chat/completions"
    whole = httpx.post(url, json=body, timeout=30)
    assert whole.json()["choices"][0]["message"]["content"] == said
    assert whole.headers["x-understudy-content"] == "redacted"
    assert "ada@example.org" in httpx.post(url, json={**body, "stream": True}, timeout=30).text
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(url, json={**body, "stream": True}, timeout=30)
    with httpx.stream("POST", url, json={**body, "stream": True}, timeout=30) as response:
        for line in response.iter_lines():
            if "ada@example.org" in line:
                break
    traces = proxy.wait_for_traces(4)
    outcomes = [trace["outcome"] for trace in traces]
    assert outcomes == ["complete", "complete", "teacher_broke", "client_gone"]
    for trace in traces:
        assert json.loads(trace["input_messages"])[0]["content"] == "<PERSON>, <EMAIL_ADDRESS>"
        assert "<PERSON>" in trace["output_messages"]
        assert trace["content"] == "redacted"
    for secret in ("Lovelace", "ada@"):
        assert secret not in proxy.journal()
