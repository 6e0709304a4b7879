"""The measurements of the proxy and of students behind it: that they run, and that they add up.

Nothing here asserts on a time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.gateways import Gateway, direct, gateways, peer
from bench.load import MissingTool, chat_body, find_wrk
from bench.logged import Logged
from bench.measure import cell_seconds
from bench.profiling import GARBAGE, function_of, group_of, ours_in, read_stacks, weigh
from bench.proxy import chosen_of
from bench.schema_inputs import LIKE, UNLIKE, inputs
from bench.student_schema import violates
from bench.upstream import ANSWER_BYTES, WHOLE, events
from tests.helpers.paths import ROOT

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk, the load generator, is not installed"
)


def run(module: str, *options: str) -> dict[str, Any]:
    """The JSON that a script of bench/ prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", "--json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# ---- the whole scripts -------------------------------------------------------------------------


@needs_wrk
@pytest.mark.rare
@pytest.mark.slow
def test_the_product_is_measured_beside_others_and_every_answer_is_logged() -> None:
    names, other = ["direct", "understudy-tagged"], "uvicorn-aiohttp"
    options = ["--seconds", "1", "--rounds", "1"]
    with ThreadPoolExecutor(2) as pool:  # at the same time, as the figures do not matter here
        whole = ["--connections", "1,4", "--only", other, "--no-streams"]
        beside = pool.submit(run, "proxy", *options, *whole)
        with_streams = ["--connections", "4", "--only", ",".join(names)]
        result = run("proxy", *options, *with_streams)
    measured = [*result["gateways"], *beside.result()["gateways"]]
    found = {gateway["name"]: gateway for gateway in measured}
    assert list(found) == [*names, other]
    for name, gateway in found.items():
        assert gateway["failed"] == []
        assert gateway["rounds"] == 1
        connections = [1, 4] if name == other else [4]
        assert [cell["connections"] for cell in gateway["cells"]] == connections
        for cell in gateway["cells"]:
            assert cell["requests"] > 0
            assert (cell["not_2xx"], cell["broken"]) == (0, 0)
            assert cell["p50_ms"] <= cell["p99_ms"]
            assert (cell["cpu_us"] is None) == (name == "direct")
        assert (gateway["memory"]["after"] is None) == (name == "direct")
    for name in names:
        for kind, chunks in (("short", 3), ("paced", 100), ("unpaced", 100)):
            stream = found[name]["streams"][kind]
            assert stream["streams"] > 0
            assert stream["broken"] == 0
            assert stream["events"] == stream["streams"] * chunks
    assert not found[other]["streams"]
    ours = found["understudy-tagged"]
    logged = ours["logged"]
    asked = sum(cell["requests"] for cell in ours["cells"])
    asked += sum(stream["streams"] for stream in ours["streams"].values())
    assert logged["answered"] > asked  # the first answer, the warm-up and the noted ones too
    assert logged["whole"]
    assert logged["answered"] <= logged["complete"] <= logged["rows"]
    assert logged["noted"] == logged["noted_found"] > 0
    assert logged["twice"] == 0
    for cell in ours["cells"]:
        assert cell["sum_cpu_us"] == pytest.approx(cell["cpu_us"] + cell["others_cpu_us"], abs=0.2)
    assert found[other]["logged"] is None


@needs_wrk
@pytest.mark.rare
@pytest.mark.slow
def test_a_student_is_measured_by_throughput_and_by_schema(tmp_path: Path) -> None:
    """In this order, since the second uses the training of the first."""
    training = ("--adapter", str(tmp_path), "--steps", "45")
    result = run(
        "student_throughput", "--seconds", "1", "--rounds", "1", "--concurrency", "4", *training
    )
    [row] = result["concurrency"]
    assert row["concurrency"] == 4
    for way in ("through the proxy", "bare, alike", "bare, plain"):
        assert row[way]["answers"] > 0
        assert (row[way]["not_2xx"], row[way]["broken"]) == (0, 0)
    assert row["through the proxy"]["by_teacher"] <= row["through the proxy"]["answers"]
    assert row["ratio"] > 0
    assert row["ratio_plain"] > 0
    assert row["proxy_cpu_us"] > 0

    # no client sees a student's answer that breaks its schema
    result = run("student_schema", "--requests", "12", "--concurrency", "4", *training)
    student, fallback, teacher, bare = (
        result[name] for name in ("student", "fallback", "teacher", "bare")
    )
    assert student["answers"] >= 12
    assert student["violations"] == fallback["violations"] == teacher["violations"] == 0
    assert result["not_2xx"] == bare["not_2xx"] == 0
    served = student["answers"] + fallback["answers"] + teacher["answers"]
    assert served == result["requests"] == bare["answers"]
    assert sum(result["reasons"].values()) == fallback["answers"] + teacher["answers"]
    assert bare["violations"] > 0
    for row in (student, fallback, teacher, bare):
        assert row["answers"] == sum(row[kind]["answers"] for kind in (LIKE, UNLIKE))


# ---- their parts -------------------------------------------------------------------------------


def test_the_load_and_the_upstream_have_their_stated_sizes() -> None:
    head, _, body = WHOLE.partition(b"\r\n\r\n")
    assert len(body) == ANSWER_BYTES
    assert b"content-length: 300" in head
    assert json.loads(body)["choices"][0]["finish_reason"] == "stop"
    assert 800 < len(chat_body()) < 1200
    assert [m["role"] for m in json.loads(chat_body())["messages"]] == ["system", "user"]
    assert "stream" not in json.loads(chat_body())
    sent = [json.loads(event.removeprefix(b"data: ")) for event in events(7)]
    assert len(sent) == 7
    assert sent[-1]["choices"][0]["finish_reason"] == "stop"


def test_without_wrk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingTool, match="apt-get install wrk"):
        find_wrk()


def test_gateways_are_chosen_by_name_or_prefix(tmp_path: Path) -> None:
    known = gateways([1, 2], tmp_path, [peer("mine=http://127.0.0.1:9/v1,pid=12")])
    names = [gateway.name for gateway in known]
    assert names[0] == "direct"
    assert "understudy-workers-2" in names
    assert "understudy-workers-1" not in names
    assert names[-1] == "mine"
    ours = [gateway.name for gateway in chosen_of(known, ["understudy"])]
    assert ours == [name for name in names if name.startswith("understudy-")]
    assert chosen_of(known, []) == known
    with pytest.raises(ValueError, match="no gateway"):
        chosen_of(known, ["under"])


@pytest.mark.parametrize("given", ["x", "=http://127.0.0.1", "x=127.0.0.1:80", "x=http://h,pid=a"])
def test_a_peer_without_a_name_or_a_url_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="NAME=URL"):
        peer(given)


def test_a_peers_url_may_end_in_v1(tmp_path: Path) -> None:
    with peer("x=http://127.0.0.1:9/v1").start("http://unused", tmp_path) as running:
        assert running.url == "http://127.0.0.1:9"
        assert running.answering() == []
    assert Gateway("direct", direct).missing is None


def test_a_cell_is_longer_for_a_slow_gateway() -> None:
    assert cell_seconds(2, 64, rate=50_000) == 2
    assert cell_seconds(2, 64, rate=100) == 13
    assert cell_seconds(2, 64, rate=0) == 20


def test_a_log_is_whole_only_if_every_answer_is_in_it_once() -> None:
    logged = Logged(
        answered=100, rows=120, complete=110, twice=0, cut_off=16, noted=10, noted_found=10
    )
    assert logged.whole
    assert not replace(logged, complete=99).whole  # one is missing
    assert not replace(logged, complete=117).whole  # more than can have been cut off
    assert not replace(logged, twice=1).whole
    assert not replace(logged, noted_found=9).whole


def test_a_profile_assigns_cpu_time_to_files_and_functions() -> None:
    raw = [
        "main (proxy/worker.py:9);run (asyncio/runners.py:1);App (proxy/app.py:7);"
        "dumps (orjson/orjson.cpython-311-x86_64-linux-gnu.so) 3",
        "main (proxy/worker.py:9);App (proxy/app.py:7);do_write (store/files/journal.py:5);"
        "os_write (libpython3.11.so.1.0);write (libc.so.6) 2",
        "main (proxy/worker.py:9);App (proxy/app.py:8);gc_collect_main (libpython3.11.so.1.0) 1",
        "main (proxy/worker.py:9);UVStream__try_write (loop.c:7) 4",
        "_watch (store/process/leash.py:48);time_sleep (libpython3.11.so.1.0) 50",
        "not a line of a profile",
    ]
    stacks = list(read_stacks(raw))
    assert [n for _, n in stacks] == [3, 2, 1, 4]
    assert [group_of(stack) for stack, _ in stacks] == [
        "orjson",
        "store/files/journal.py",
        GARBAGE,
        "uvloop",
    ]
    assert function_of(stacks[1][0]) == "do_write (store/files/journal.py)"
    assert ours_in(stacks[1][0]) == {"App (proxy/app.py)", "do_write (store/files/journal.py)"}
    weighed = weigh(stacks, user_us=80.0, system_us=20.0)
    assert [us for _, us in weighed] == pytest.approx([30.0, 20.0, 10.0, 40.0])
    assert sum(us for _, us in weigh(stacks[:1], 80.0, 20.0)) == pytest.approx(100.0)


def test_schema_requests_are_varied_and_the_same_for_a_seed() -> None:
    source, again = inputs(3), inputs(3)
    found = [next(source) for _ in range(400)]
    assert found == [next(again) for _ in range(400)]
    assert [kind for kind, _ in found[:4]] == [LIKE, UNLIKE, LIKE, UNLIKE]
    assert len({text for kind, text in found if kind == UNLIKE}) > 150
    assert all(text for _, text in found)


@pytest.mark.parametrize(
    ("content", "broken"),
    [
        ('{"order_id": "AB-1234", "date": "2024-01-02", "amount": "12.50"}', False),
        ('{"order_id": null, "date": null, "amount": null}', False),
        ('{"order_id": "AB-1234", "date": null}', True),
        ('{"order_id": "ab-1", "date": null, "amount": null}', True),
        ('{"order_id": null, "date": null, "amount": null, "more": 1}', True),
        ("no JSON", True),
        (None, True),
    ],
)
def test_answers_that_break_the_schema_are_counted(content: str | None, broken: bool) -> None:
    assert violates(content) is broken
