"""A control plane whose database cannot be opened: it owns nothing, says why, and looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from distill.api import build_api_without_store
from distill.opening import give_routes_to_teacher, open_when_possible
from distill.ownership import owned
from distill.presence import Heart
from store.database.database import Database
from store.errors import StoreDamaged, StoreError
from store.files.routes import publish_routes, read_routes
from store.records import Reason
from store.settings.config import Config, StoreSettings, parse_config
from tests.helpers.damage import DAMAGE, a_database, cut_in_half
from tests.helpers.live_scene import until
from tests.helpers.samples import a_route
from tests.helpers.serving import settings


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_database(tmp_path_factory.mktemp("template"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config(settings("http://127.0.0.1:9/v1", tmp_path / "data"))


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.slow
def test_a_damaged_file_is_named_with_what_to_do(
    config: Config, template: Path, harm: Callable[[Path], object]
) -> None:
    file = config.database_file
    harm(a_database(file.parent, like=template))
    with pytest.raises(StoreDamaged, match=r"is damaged \(.+\): run `understudy repair`"):
        Database(file, StoreSettings())
    with owned(config.data_dir, max_wait_s=0):  # nobody holds it
        pass


@pytest.mark.slow
async def test_a_damaged_file_is_looked_at_until_it_can_be_opened(
    config: Config, template: Path
) -> None:
    file = config.database_file
    cut_in_half(a_database(file.parent, like=template))
    faults: list[StoreError] = []
    stop = asyncio.Event()
    opening = asyncio.create_task(open_when_possible(config, stop, Heart(None), faults.append))
    await until(lambda: bool(faults))
    with owned(config.data_dir, max_wait_s=0):  # as `understudy repair` does
        a_database(file.parent, like=template)
    opened = await opening
    assert opened is not None
    releases, db = opened
    with releases:
        assert db.query("task_counts")
        assert len(faults) < 5


async def test_a_stop_ends_the_waiting(config: Config, template: Path) -> None:
    cut_in_half(a_database(config.database_file.parent, like=template))
    stop = asyncio.Event()
    assert await open_when_possible(config, stop, Heart(None), lambda _: stop.set()) is None


@pytest.mark.slow
async def test_an_opening_that_takes_long_shows_as_a_query_that_does(config: Config) -> None:
    heart, stop = Heart(None), asyncio.Event()
    with owned(config.data_dir):  # it waits for this
        opening = asyncio.create_task(open_when_possible(config, stop, heart, lambda _: None))
        await until(lambda: heart.query_s() > 0.2)
    opened = await opening
    assert opened is not None
    assert heart.query_s() == 0
    opened[0].close()


def test_without_students_the_routes_go_to_the_teacher(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    give_routes_to_teacher(path, at=1.0)
    assert not path.exists()
    route = a_route(task="t", base_url="http://127.0.0.1:1")
    publish_routes(path, {"t": route}, at=1.0)
    for _ in range(2):
        give_routes_to_teacher(path, at=2.0)
        found = read_routes(path)["t"]
        assert (found.target, found.reason) == ("teacher", Reason.STUDENT_STARTING)
        assert (found.terms, found.fingerprints) == (route.terms, route.fingerprints)


async def test_the_status_without_a_database_says_why_and_all_else_is_a_503() -> None:
    api: Any = build_api_without_store(
        token="t", fault="it is damaged: run `understudy repair`", clock=lambda: 1.0, version="1"
    )
    transport, key = httpx.ASGITransport(api), {"x-understudy-token": "t"}
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=key) as client:
        said = (await client.get("/distill/status")).json()
        assert (said["store"]["ok"], said["tasks"]) == (False, [])
        assert "understudy repair" in said["store"]["error"]
        assert "understudy_store_ok 0" in (await client.get("/distill/metrics")).text
        assert (await client.get("/distill")).status_code == 200
        for method, path in (("GET", "status/t"), ("POST", "tasks/t/pause"), ("POST", "forget")):
            answer = await client.request(method, f"/distill/{path}", json={})
            assert (answer.status_code, "repair" in answer.json()["detail"]) == (503, True)
        client.headers["x-understudy-token"] = "another"
        assert (await client.get("/distill/status")).status_code == 403
