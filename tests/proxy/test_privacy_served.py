"""`understudy serve` with privacy settings: a real client, and the files on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import openai
import pytest

from cli.status.client import fetch_status
from store.errors import ProductError
from tests.helpers.served import Served
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import LoopbackServer, completion, stream

MAIL, NAME = "zoe.canary@example.org", "Zoe Canary"


@pytest.mark.slow
def test_shared_counts_that_cannot_be_read_are_skipped(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    params = {"model": "openai/gpt-4o", "api_base": teacher.base_url, "api_key": "k"}
    config: dict[str, Any] = {
        "model_list": [{"model_name": "gpt-4o", "litellm_params": params}],
        "privacy": {"redact": ["email", "phone"]},
    }
    teacher.script(
        completion(f"Dear {NAME}, write to {MAIL}."),
        completion(f"Dear {MAIL}."),
        stream(f"Dear {MAIL} now"),
    )
    task = {"X-Understudy-Task": "mail"}
    with Served(tmp_path, config) as served, served.client() as client:
        raw = client.chat.completions.with_raw_response
        silent = raw.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": f"I am {NAME}, {MAIL}"}],
            store=False,
            extra_headers=task,
        )
        redacted = raw.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": f"Mail {MAIL} or +49 30 901820"}],
            extra_headers=task,
        )
        chunks = client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": f"{MAIL}?"}],
            stream=True,
            extra_headers=task,
        )
        said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert said == f"Dear {MAIL} now"
        assert MAIL in (redacted.parse().choices[0].message.content or "")
        assert silent.headers["x-understudy-content"] == "none"
        assert redacted.headers["x-understudy-content"] == "redacted"
        with pytest.raises(openai.BadRequestError):
            raw.create(
                model="gpt-4o", messages=[], extra_headers={**task, "X-Understudy-Store": "maybe"}
            )
        trace_id = silent.headers["x-understudy-trace"]
        client.post("/feedback", body={"trace_id": trace_id, "correction": NAME}, cast_to=object)
        wait_until(lambda: _traces(served) == 3, within_s=60)
    for file in served.data_dir.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert MAIL.encode() not in content, file
            assert b"901820" not in content, file
    assert MAIL not in served.output
    with duckdb.connect(str(served.data_dir / "understudy.duckdb"), read_only=True) as db:
        rows = db.execute(
            "SELECT content, input_messages, output_messages FROM traces ORDER BY start_time"
        ).fetchall()
        corrections = db.execute("SELECT count(*) FROM feedback").fetchone()
    assert [content for content, _, _ in rows] == ["none", "redacted", "redacted"]
    assert rows[0][1:] == ("[]", None)
    assert "Mail <EMAIL> or <PHONE>" in rows[1][1]
    assert "Dear <EMAIL> now" in rows[2][2]
    assert corrections == (0,)


def _traces(served: Served) -> int:
    try:
        tasks = fetch_status(served.url)["tasks"]
    except ProductError:  # the control plane is not up yet
        return 0
    return sum(task["traces"] for task in tasks)
