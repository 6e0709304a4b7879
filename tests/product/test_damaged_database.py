"""`understudy serve` with a damaged database: it answers, journals, and says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from store.database.database import Database
from store.settings.config import StoreSettings
from tests.helpers.damage import LOGGED, TRACES, a_database, cut_in_half
from tests.helpers.journal_lines import journal_text
from tests.helpers.served import Served
from tests.helpers.serving import settings, wait_until
from tests.helpers.teacher_server import LoopbackServer

pytestmark = pytest.mark.slow


def test_a_server_with_a_damaged_database_answers_says_what_to_do_and_goes_on_repaired(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    cut_in_half(a_database(tmp_path / "data"))
    raw = settings(teacher.base_url, Path("unused"))
    with Served(tmp_path, {"model_list": raw["model_list"]}) as served, served.client() as client:
        for _ in range(3):
            client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "hello"}]
            )

        def store() -> dict[str, object]:
            answer = httpx.get(f"{served.url}/distill/status", timeout=60)
            return answer.json()["store"] if answer.status_code == 200 else {}

        wait_until(lambda: "run `understudy repair`" in str(store().get("error")), within_s=60)
        assert not store()["ok"]
        health = httpx.get(f"{served.url}/health", timeout=60).json()
        assert health["status"] == "degraded"
        said = health["control_plane"]["error"]
        assert said.startswith("understudy.duckdb is damaged (it is cut short)")
        assert "understudy repair" in served.output
        assert journal_text(served.data_dir / "journal").count("hello") >= 3

        command = [sys.executable, "-P", "-m", "cli", "repair", "-c", str(served.config_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "there is a new one" in done.stdout
        wait_until(lambda: store().get("collected") == 3, within_s=60)
        assert store()["ok"]
        wait_until(lambda: httpx.get(f"{served.url}/health").json()["status"] == "ok")
    with Database(served.data_dir / "understudy.duckdb", StoreSettings()) as db:
        assert db.query("count_traces")[0]["rows"] == TRACES + LOGGED + 3
