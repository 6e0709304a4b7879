"""The measured gateways: Understudy as users run it, its peers, and no gateway at all.

Each gateway is started in a temporary folder, in front of the same upstream, and stopped again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench.load import HEADERS, KEY, TASK
from bench.paths import ROOT
from bench.relay import UPSTREAM_VARIABLE
from bench.upstream import MODELS
from distill.students.server import free_port
from store.jsontext import JsonObject

OUTPUT = "output"  # its output, in its folder
NODE_MODULES = ROOT / ".venv" / "npm" / "node_modules"
PORTKEY = NODE_MODULES / "@portkey-ai" / "gateway" / "build" / "start-server.js"
_HOW_TO_GET_PORTKEY = (
    "node and portkey (`npm install --no-save --prefix .venv/npm @portkey-ai/gateway`)"
)
STOP_S = 40.0  # `understudy serve` gives its children 30
NEVER = 10**9  # traces until a run is due: distilling is no part of this measurement

Processes = Callable[[], list[psutil.Process]]


def nobody() -> list[psutil.Process]:
    """No process: of a gateway that runs elsewhere."""
    return []


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that was started a moment ago, and may not answer yet."""

    url: str  # without /v1
    began: float  # time.perf_counter() at its command
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)
    answering: Processes = nobody  # whose CPU is compared
    others: Processes = nobody  # its processes that do not answer clients
    data_dir: Path | None = None  # of Understudy
    process: psutil.Popen | None = None  # None: nothing was started


@dataclass(frozen=True, slots=True)
class Gateway:
    """How to start one, and why it cannot be started here."""

    name: str
    start: Callable[[str, Path], AbstractContextManager[Running]]  # of the upstream's URL, a folder
    missing: str | None = None  # to be installed first


def gateways(workers: Sequence[int], checkout: Path, peers: Sequence[Gateway]) -> list[Gateway]:
    """All of them, in the order of measuring. `checkout`: Understudy's code."""

    def ours(name: str, **options: Any) -> Gateway:
        return Gateway(
            f"understudy-{name}",
            lambda upstream, folder: understudy(upstream, folder, checkout=checkout, **options),
        )

    nginx_missing = None if shutil.which("nginx") else "nginx (Debian package nginx-light)"
    portkey_missing = None if PORTKEY.exists() and shutil.which("node") else _HOW_TO_GET_PORTKEY
    litellm_missing = None if find_spec("litellm") else "litellm (PyPI package litellm[proxy])"
    return [
        Gateway("direct", direct),
        Gateway("nginx", nginx, nginx_missing),
        Gateway("uvicorn-aiohttp", relay),
        ours("untagged", tagged=False),
        ours("tagged"),
        ours("key", key=True),
        *(ours(f"workers-{n}", workers=n) for n in workers if n > 1),
        Gateway("portkey", portkey, portkey_missing),
        Gateway("litellm", litellm, litellm_missing),
        *peers,
    ]


def peer(text: str) -> Gateway:
    """`NAME=URL[,pid=PID]`: one that runs already, in front of the same upstream.

    Raises ValueError for anything else.
    """
    name, _, rest = text.partition("=")
    url, _, option = rest.partition(",pid=")
    if not name or not url.startswith("http") or not (option.isdigit() or option == ""):
        raise ValueError(f"{text}: a peer is given as NAME=URL or NAME=URL,pid=PID")
    processes = family(int(option)) if option else nobody

    @contextmanager
    def start(_upstream: str, _folder: Path) -> Iterator[Running]:
        yield Running(url.rstrip("/").removesuffix("/v1"), time.perf_counter(), answering=processes)

    return Gateway(name, start)


@contextmanager
def direct(upstream: str, _folder: Path) -> Iterator[Running]:
    """The upstream itself."""
    yield Running(upstream, time.perf_counter())


@contextmanager
def understudy(
    upstream: str,
    folder: Path,
    *,
    checkout: Path = ROOT,
    tagged: bool = True,
    key: bool = False,
    workers: int = 1,
) -> Iterator[Running]:
    """`understudy serve` with a journal, its control plane and a store, and no task that is due.

    `key`: clients need a key, and the task is the key's, not a header's.
    """
    port, data_dir = free_port(), folder / "data"
    server: JsonObject = {"port": port}
    if key:
        server["keys"] = [{"key": KEY, "name": "bench", "task": TASK}]
    if workers != 1:
        server["workers"] = workers
    config = {
        "model_list": _model_list(upstream),
        "server": server,
        "data_dir": str(data_dir),
        "task_defaults": {"min_traces": NEVER},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "cli", "serve", "--config", str(file)]
    env = {"PYTHONPATH": str(checkout)}
    with _started(command, folder, env, cwd=checkout) as (process, began):
        running = family(process.pid)
        yield Running(
            f"http://127.0.0.1:{port}",
            began,
            headers={**HEADERS, "x-understudy-task": TASK} if tagged and not key else HEADERS,
            answering=lambda: [p for p in running() if is_worker(p)],
            others=lambda: [p for p in running() if not is_worker(p)],
            data_dir=data_dir,
            process=process,
        )


@contextmanager
def litellm(upstream: str, folder: Path) -> Iterator[Running]:
    """LiteLLM's proxy without a database, keys or callbacks: it logs nothing."""
    file, port = folder / "litellm.yaml", free_port()
    file.write_text(yaml.safe_dump({"model_list": _model_list(upstream)}))
    module = ["-m", "litellm.proxy.proxy_cli", "--config", str(file), "--telemetry", "False"]
    command = [sys.executable, *module, "--host", "127.0.0.1", "--port", str(port)]
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it asks the internet while it starts
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "CRITICAL",
        "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no key: less to do
    }
    with _started(command, folder, env) as (process, began):
        yield _all_answer(port, began, process)


@contextmanager
def portkey(upstream: str, folder: Path) -> Iterator[Running]:
    """Portkey's gateway without its console: a client's headers name the upstream."""
    port = free_port()
    command = ["node", str(PORTKEY), f"--port={port}", "--headless"]
    env = {"NODE_ENV": "production"}
    with _started(command, folder, env) as (process, began):
        to = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream}/v1"}
        yield replace(_all_answer(port, began, process), headers={**HEADERS, **to})


@contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[Running]:
    """nginx with one worker: about the least that a hop can cost."""
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(
        NGINX.format(folder=folder, port=port, upstream=upstream.removeprefix("http://"))
    )
    command = ["nginx", "-c", str(file), "-p", str(folder), "-e", str(folder / "error.log")]
    with _started(command, folder, {}) as (process, began):
        yield _all_answer(port, began, process)


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream teacher {{ server {upstream}; keepalive 256; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://teacher;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@contextmanager
def relay(upstream: str, folder: Path) -> Iterator[Running]:
    """bench/relay.py."""
    port = free_port()
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--host", "127.0.0.1"]
    command = [sys.executable, "-m", "uvicorn", "bench.relay:app", *options, "--port", str(port)]
    with _started(command, folder, {UPSTREAM_VARIABLE: upstream}) as (process, began):
        yield _all_answer(port, began, process)


def _all_answer(port: int, began: float, process: psutil.Popen) -> Running:
    """One all of whose processes answer."""
    url = f"http://127.0.0.1:{port}"
    return Running(url, began, answering=family(process.pid), process=process)


def _model_list(upstream: str) -> list[JsonObject]:
    """The upstream's models, in LiteLLM's schema, which Understudy uses too."""
    params = {"api_base": f"{upstream}/v1", "api_key": "none"}
    prices = {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6}
    return [
        {"model_name": model, "litellm_params": {"model": f"openai/{model}", **params, **prices}}
        for model in MODELS
    ]


def is_worker(process: psutil.Process) -> bool:
    """Whether it is a worker of Understudy's proxy."""
    return any("proxy.worker" in part for part in process.cmdline())


def family(pid: int) -> Processes:
    """The process and all its present descendants."""

    def processes() -> list[psutil.Process]:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]

    return processes


@contextmanager
def _started(
    command: Sequence[str], folder: Path, env: Mapping[str, str], cwd: Path = ROOT
) -> Iterator[tuple[psutil.Popen, float]]:
    """A process, and when it was started. Its output is in `folder/output`."""
    with (folder / OUTPUT).open("wb") as output:
        began = time.perf_counter()
        process = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **env},
            cwd=cwd,
        )
    try:
        yield process, began
    finally:
        started = family(process.pid)() if process.is_running() else []
        if process.poll() is None:
            process.terminate()
        _, left = psutil.wait_procs(started, timeout=STOP_S)
        for one in left:
            one.kill()
        process.wait()
