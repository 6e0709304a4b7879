"""A control plane that hangs is noticed and replaced; the proxy answers meanwhile."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.helpers.served import Served
from tests.helpers.serving import settings, wait_until
from tests.helpers.teacher_server import LoopbackServer

pytestmark = pytest.mark.slow


def test_a_stopped_control_plane_is_killed_and_started_again(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    raw = settings(teacher.base_url, Path("unused"))
    with Served(tmp_path, {"model_list": raw["model_list"]}) as served:

        def status() -> int:
            return httpx.get(f"{served.url}/distill/status", timeout=60).status_code

        wait_until(lambda: status() == 200, within_s=60)
        hung = served.child("distill.control")
        hung.send_signal(signal.SIGSTOP)
        wait_until(lambda: status() == 503)
        health = httpx.get(f"{served.url}/health", timeout=60).json()
        assert (health["status"], health["control_plane"]["alive"]) == ("degraded", False)
        wait_until(lambda: not hung.is_running(), within_s=60)
        wait_until(lambda: status() == 200, within_s=60)
        assert served.child("distill.control").pid != hung.pid
        assert "has not moved for" in served.output
