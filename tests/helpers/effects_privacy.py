"""The effects of the privacy settings. The table comes last."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import spacy

from store.privacy.redaction import redaction_of
from store.settings.config import parse_config
from tests.helpers.effects import Effect, Raw
from tests.helpers.effects_serving import WITH_A_KEY, proxied
from tests.helpers.serving import CLIENT_KEY

SAID = "EMP-123456 is ada@example.org, call 212-555-5555"


def content_of_a_trace(raw: Raw) -> str:
    """How much is kept of a request with `store: false`."""
    return _traced(raw, store=False)["content"]


def content_by_the_key(raw: Raw) -> str:
    return _traced(raw)["content"]


def logged(raw: Raw) -> str:
    """What is logged of what was said."""
    said: str = json.loads(_traced(raw)["input_messages"])[0]["content"]
    return said


def _traced(raw: Raw, **more: bool) -> dict[str, str]:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": SAID}], **more}
    with proxied(raw) as (proxy, _):
        url, key = f"{proxy.base_url}/chat/completions", f"Bearer {CLIENT_KEY}"
        httpx.post(url, json=body, headers={"authorization": key}, timeout=60)
        [trace] = proxy.traces()
        return trace


def redacted(raw: Raw) -> str:
    found = redaction_of(parse_config(raw).privacy)
    assert found is not None
    return found.text(SAID)


def redacted_by_a_model(raw: Raw) -> str:
    """With a pipeline of spaCy that is made here; None stands for no pipeline."""
    with TemporaryDirectory() as folder:
        presidio = raw["privacy"]["presidio"]
        if presidio["model"] is not None:
            pipeline = spacy.blank("en")
            ruler = pipeline.add_pipe("entity_ruler")
            ruler.add_patterns([{"label": "PERSON", "pattern": presidio["model"]}])
            presidio["model"] = str(Path(folder) / "model")
            pipeline.to_disk(presidio["model"])
            presidio["entities"] = ["PERSON"]
        return redacted(raw)


def spanish(raw: Raw) -> str:
    """What is found of a Spanish identity number, which is looked for in Spanish texts alone."""
    found = redaction_of(parse_config(raw).privacy)
    assert found is not None
    return found.text("NIF 55555555K, a@b.org")


BADGE = {"name": "badge", "pattern": "EMP-[0-9]{6}"}
WITH_A_RULE = {"privacy.redact": [BADGE]}
PRESIDIO = {"privacy.presidio": {"entities": ["EMAIL_ADDRESS"]}}
EMAIL = "EMP-123456 is <EMAIL_ADDRESS>, call 212-555-5555"
PHONE = {"privacy.presidio": {"entities": ["PHONE_NUMBER"]}}

PRIVACY: dict[str, Effect] = {
    "privacy.store_false": Effect(
        content_of_a_trace, (["chat_completions"], "none"), (["responses"], "full")
    ),
    "server.keys.store": Effect(content_by_the_key, (True, "full"), (False, "none"), WITH_A_KEY),
    "privacy.redact": Effect(
        logged, ([], SAID), (["email"], SAID.replace("ada@example.org", "<EMAIL>"))
    ),
    "privacy.redact.name": Effect(
        redacted,
        ("badge", SAID.replace("EMP-123456", "<BADGE>")),
        ("staff", SAID.replace("EMP-123456", "<STAFF>")),
        WITH_A_RULE,
    ),
    "privacy.redact.pattern": Effect(
        redacted,
        ("EMP-[0-9]+", SAID.replace("EMP-123456", "<BADGE>")),
        ("212-[0-9]+", SAID.replace("212-555", "<BADGE>")),
        WITH_A_RULE,
    ),
    "privacy.redact.replace": Effect(
        redacted,
        (None, SAID.replace("EMP-123456", "<BADGE>")),
        ("[somebody]", SAID.replace("EMP-123456", "[somebody]")),
        WITH_A_RULE,
    ),
    "privacy.presidio": Effect(
        logged, (None, SAID), ({"entities": ["EMAIL_ADDRESS"]}, EMAIL), slow=True
    ),
    "privacy.presidio.entities": Effect(
        redacted,
        (["EMAIL_ADDRESS"], EMAIL),
        (["PHONE_NUMBER"], SAID.replace("212-555-5555", "<PHONE_NUMBER>")),
        {"privacy.presidio": {"score": 0.4}},
        slow=True,
    ),
    "privacy.presidio.score": Effect(
        redacted,
        (0.4, SAID.replace("212-555-5555", "<PHONE_NUMBER>")),
        (0.9, SAID),
        PHONE,
        slow=True,
    ),
    "privacy.presidio.language": Effect(
        spanish,
        ("en", "NIF 55555555K, <EMAIL_ADDRESS>"),
        ("es", "NIF <ES_NIF>, <EMAIL_ADDRESS>"),
        lambda language: {
            "privacy.presidio": {
                "entities": ["EMAIL_ADDRESS", *(["ES_NIF"] if language == "es" else [])]
            }
        },
        slow=True,
    ),
    "privacy.presidio.model": Effect(
        redacted_by_a_model,
        (None, EMAIL),
        ("EMP-123456", SAID.replace("EMP-123456", "<PERSON>")),
        PRESIDIO,
        slow=True,
    ),
}
