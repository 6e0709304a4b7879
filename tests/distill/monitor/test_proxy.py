"""A student at a running proxy: from shadow to live, then wrong, then demoted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.chat.shape import fingerprint
from store.records import Reason
from tests.helpers.live_scene import EVERY_AUDIT, Scene, answering, right, wrong
from tests.helpers.serving import CLIENT_KEY, ProxyThread, settings

SHARES = [0.5, 1.0]
CERTIFIED = {"n": 400, "agreed": 398, "heldout": 400}
ROUTES_READ_WITHIN_S = 1.0  # every proxy has read new routes by then


def body(text: str) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}


async def ask(proxy: ProxyThread, text: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "x-understudy-task": "triage"}
    async with httpx.AsyncClient(timeout=30) as client:
        response = await client.post(
            f"{proxy.base_url}/chat/completions", json=body(text), headers=headers
        )
    assert response.status_code == 200
    return response


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_a_student_climbs_all_steps_and_is_demoted_when_it_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rollout = {"shadow_share": 1.0, "shares": SHARES, "min_comparisons": 5, "confirm": False}
    async with Scene(folder, audit=EVERY_AUDIT, rollout=rollout) as scene:
        raw = settings(scene.teacher.base_url, folder)
        scene.now = time.time() - 20
        scene.promote(step="shadow", certificate=CERTIFIED, fingerprints=[fingerprint(body(""))])
        await scene._follow()
        with ProxyThread(raw) as proxy:
            seen: list[str] = []
            reasons: Counter[str] = Counter()

            async def some(name: str) -> None:
                """Sends some requests, waits for the journal, and runs a tick."""
                for number in range(4):
                    answer = await ask(proxy, f"{name} {number}")
                    reasons[answer.headers["x-understudy-reason"]] += 1
                await asyncio.sleep(0.3)
                scene.now = time.time()
                await scene.settle()
                seen.append(scene.promotion().state)

            number = 0
            while scene.promotion().state != "live":
                number += 1
                assert number < 40, seen
                await some(f"good {number}")
            assert list(dict.fromkeys(seen)) == ["shadow", "canary", "live"]
            await asyncio.sleep(ROUTES_READ_WITHIN_S)
            await some("live")
            assert {Reason.SHADOW, Reason.CERTIFIED} <= reasons.keys()

            scene.student.answer = answering(wrong)  # in the right form
            served = 0
            while scene.promotion().state == "live":
                served += 4
                assert served < 80
                await some(f"bad {served}")
            assert scene.promotion().state == "demoted"
            decided = time.time()
            last = await ask(proxy, "after")
            while last.headers["x-understudy-route"] == "student":
                last = await ask(proxy, "after")
            assert time.time() - decided < ROUTES_READ_WITHIN_S
            assert last.headers["x-understudy-reason"] == Reason.DEMOTED
            assert last.json()["choices"][0]["message"]["content"] == right("after")
