"""What many tests start: a scriptable teacher, and a proxy in front of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import openai
import pytest

from tests.helpers.serving import CLIENT_KEY, ProxyThread, settings
from tests.helpers.teacher_server import LoopbackServer

# processes that tests start keep what they have compiled, as a user's do
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# or LiteLLM asks the internet for prices when a test imports it
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# a fast matrix product for the students of tests, where the machine has no OpenBLAS of its own
os.environ.setdefault("UNDERSTUDY_BLAS", "scipy-openblas32")

# no test asserts on time: the machine may be busy with something else
hypothesis.settings.register_profile("understudy", deadline=None, max_examples=50)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=15)
hypothesis.settings.load_profile("understudy")

if TYPE_CHECKING:
    from store.database.database import Database

StartProxy = Callable[..., ProxyThread]

LONG = 200  # characters of a parameter that its test's name leaves out


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long texts as their length: megabytes of a name hide what failed."""
    if isinstance(val, str | bytes) and len(val) > LONG:
        return f"{argname} of {len(val)}"
    return None


@pytest.fixture(scope="session")
def sample_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learnt the sample task, to be read only.

    Trained once for all processes of a test run: who comes second finds the training done.
    """
    from tests.helpers.student_samples import trained_adapter  # noqa: PLC0415 - slow to import

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "sample-adapter"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return trained_adapter(folder / "training")


@pytest.fixture
def database_file(tmp_path: Path) -> Path:
    """Where the `db` of a test is: beside nothing, in a folder that does not exist yet."""
    return tmp_path / "data" / "understudy.duckdb"


@pytest.fixture
def db(database_file: Path) -> Iterator[Database]:
    """An empty database with the default settings."""
    from store.database.database import Database  # noqa: PLC0415 - slow to import
    from store.settings.config import StoreSettings  # noqa: PLC0415

    with Database(database_file, StoreSettings()) as opened:
        yield opened


@pytest.fixture
def teacher() -> Iterator[LoopbackServer]:
    """A teacher that echoes, until a test scripts it."""
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def start_proxy(teacher: LoopbackServer, tmp_path: Path) -> Iterator[StartProxy]:
    """Starts a proxy in front of the teacher, with settings laid over the simplest ones."""
    with ExitStack() as stack:

        def start(*, runtime: dict[str, Any] | None = None, **overrides: Any) -> ProxyThread:
            raw = settings(teacher.base_url, tmp_path / "data", **overrides)
            return stack.enter_context(ProxyThread(raw, **(runtime or {})))

        yield start


@pytest.fixture
def proxy(start_proxy: StartProxy) -> ProxyThread:
    """A proxy with the simplest settings."""
    return start_proxy()


@pytest.fixture
def client(proxy: ProxyThread) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK pointed at the proxy."""
    with openai.OpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0) as sdk:
        yield sdk
