"""The effects of the settings of the server, its teachers and LiteLLM. The table comes last."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import yaml

from cli.serve.banner import summary
from cli.serve.listen import listen
from cli.serve.litellm_child import KEY_VARIABLE
from cli.serve.plan import ServeContext, litellm_for, plan_children
from store.errors import ProductError
from store.settings.config import LITELLM_BLOCKS, ServerSettings, parse_config
from store.settings.teachers import Price, deployments, prices
from tests.helpers.effects import Effect, Raw
from tests.helpers.serving import CLIENT_KEY, ProxyProcess, ProxyThread
from tests.helpers.teacher_server import LoopbackServer, completion

# ---- a real proxy ------------------------------------------------------------------------------

LITELLM_COMES_AFTER_S = 0.5
HANGS_UP_AFTER_S = 0.5
ORIGIN = "https://app.example"


def ask(proxy: ProxyThread | ProxyProcess, text: str = "hello") -> httpx.Response:
    return httpx.post(
        f"{proxy.base_url}/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": text}]},
        headers={"authorization": f"Bearer {CLIENT_KEY}"},
        timeout=60,
    )


@contextlib.contextmanager
def proxied(raw: Raw) -> Iterator[tuple[ProxyThread, LoopbackServer]]:
    """A proxy with these settings, in front of a teacher that echoes."""
    with LoopbackServer() as teacher:
        for entry in raw["model_list"]:
            entry["litellm_params"]["api_base"] = teacher.base_url
        with ProxyThread(raw) as proxy:
            yield proxy, teacher


def status_of(text: str) -> Callable[[Raw], int]:
    """The status of a request with this text."""

    def seen(raw: Raw) -> int:
        with proxied(raw) as (proxy, _):
            return ask(proxy, text).status_code

    return seen


def status_of_a_preflight(raw: Raw) -> int:
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    with proxied(raw) as (proxy, _):
        return httpx.options(f"{proxy.base_url}/chat/completions", headers=headers).status_code


def answer_to(request: bytes) -> Callable[[Raw], bytes]:
    """What a client gets after some two seconds that has sent this and no more."""

    def seen(raw: Raw) -> bytes:
        with (
            proxied(raw) as (proxy, _),
            socket.create_connection(("127.0.0.1", proxy.port), 2) as client,
        ):
            client.sendall(request)
            try:
                return client.recv(1024)[:12]
            except TimeoutError:
                return b""

    return seen


def task_of_the_trace(raw: Raw) -> str | None:
    with proxied(raw) as (proxy, _):
        ask(proxy)
        [trace] = proxy.traces()
        task: str | None = trace["task"]
        return task


def model_names(raw: Raw) -> list[str]:
    with proxied(raw) as (proxy, _):
        return [entry["id"] for entry in httpx.get(f"{proxy.base_url}/models").json()["data"]]


def upstream_name(raw: Raw) -> str:
    with proxied(raw) as (proxy, teacher):
        ask(proxy)
        return str(teacher.requests[0].json["model"])


def key_for_the_teacher(raw: Raw) -> str:
    """The key that the teacher gets from a request that names no model."""
    with proxied(raw) as (proxy, teacher):
        httpx.get(f"{proxy.base_url}/files")
        return teacher.requests[0].headers["authorization"]


def status_of_a_slow_answer(raw: Raw) -> int:
    with proxied(raw) as (proxy, teacher):
        teacher.script(completion("late").slow(0.5))
        return ask(proxy).status_code


def status_of_a_connection_that_hangs(raw: Raw) -> int:
    """The teacher takes the connection, is silent in TLS's handshake, and hangs up in the end."""
    answered = threading.Event()

    def teacher(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        answered.wait(HANGS_UP_AFTER_S)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        port = listening.getsockname()[1]
        raw["model_list"][0]["litellm_params"]["api_base"] = f"https://127.0.0.1:{port}/v1"
        pool.submit(teacher, listening)
        with ProxyThread(raw) as proxy:
            status = ask(proxy).status_code
        answered.set()
        return status


def status_of_a_request_before_litellm(raw: Raw) -> int:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    address = {"litellm_url": f"http://127.0.0.1:{port}/v1", "litellm_key": "sk-master"}
    with ProxyThread(raw, **address) as proxy, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, proxy)
        wait([asked], timeout=LITELLM_COMES_AFTER_S)
        with LoopbackServer(port=port):
            return asked.result().status_code


def levels_logged(raw: Raw) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        proxy = ProxyProcess(raw, Path(folder))
        with proxy:
            ask(proxy)  # the teacher is down
            proxy.process.terminate()
            proxy.process.wait(30)
        return set(re.findall(r" level=(\w+) ", proxy.log))


def folder_of_the_journal(raw: Raw) -> str:
    """Where `serve` is started, a relative data_dir begins."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with proxied(raw) as (proxy, _):
            ask(proxy)
        [segment] = Path(folder).rglob("*.jsonl")
        return segment.relative_to(folder).parts[0]


# ---- what `understudy serve` starts ------------------------------------------------------------


def where_it_listens(raw: Raw) -> str:
    server = parse_config(raw).server
    try:
        with listen(server) as listening:
            host, port = listening.getsockname()
            return f"{host}:{port}"
    except ProductError as error:  # the address is not ours, or the port is taken
        found = re.match(r"cannot listen on (\S+): ", str(error))
        assert found is not None, error
        return found[1]


def keys_on_the_screen(raw: Raw) -> str:
    return dict(summary(parse_config(raw)))["keys"]


def handed_to_litellm(block: str) -> Callable[[Raw], Any]:
    """What a LiteLLM that runs beside the proxy is given of a block; None when none runs."""

    def seen(raw: Raw) -> Any:
        config = parse_config(raw)
        with listen(ServerSettings(port=0)) as listening, contextlib.ExitStack() as ports:
            context = ServeContext.create(config.data_dir / "config.yaml", listening, 5001)
            if litellm_for(context, config, ports) is None:
                return None
        return yaml.safe_load((config.data_dir / "litellm.yaml").read_text())[block]

    return seen


def planned_workers(raw: Raw) -> list[str]:
    """The names of the proxy's processes."""
    config = parse_config(raw)
    with listen(ServerSettings(port=0)) as listening:
        context = ServeContext.create(config.data_dir / "config.yaml", listening, 5001)
        plan = plan_children(context, config, config.data_dir / "accepted.yaml", None)
        plan.roster.close()
    return [spec.name for spec in plan.proxies]


def status_of_an_answer_that_is_late(raw: Raw) -> int | None:
    """The status of an answer that comes some time after the stop; None when there is none."""
    with LoopbackServer() as teacher, tempfile.TemporaryDirectory() as folder:
        raw["model_list"][0]["litellm_params"]["api_base"] = teacher.base_url
        teacher.script(completion("late").slow(0.6))
        with ProxyProcess(raw, Path(folder)) as proxy, ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, proxy)
            while not teacher.requests:
                wait([asked], timeout=0.05)
            proxy.process.terminate()
            try:
                return asked.result().status_code
            except httpx.RemoteProtocolError:
                return None


def teachers_address(raw: Raw) -> str:
    return deployments(parse_config(raw))[0].base_url


def teachers_price(raw: Raw) -> Price | None:
    return prices(parse_config(raw)).get("gpt-4o")


# ---- the table ---------------------------------------------------------------------------------

PORT, OTHER_PORT = 21470, 21471  # below those that systems hand out by themselves
OWN_KEY = {"key": CLIENT_KEY, "name": "app"}
WITH_A_KEY = {"server.keys": [OWN_KEY]}
PARAMS = "model_list.litellm_params"
UNPRICED = {f"{PARAMS}.model": "openai/rules"}  # and so without LiteLLM's own price


def teacher_entry(name: str) -> dict[str, Any]:
    params = {"model": f"openai/{name}", "api_key": f"sk-{name}"}
    return {"model_name": name, "litellm_params": params}


FIRST, SECOND = teacher_entry("first"), teacher_entry("second")

MODEL_LIST: dict[str, Effect] = {
    "model_list": Effect(model_names, ([FIRST], ["first"]), ([FIRST, SECOND], ["first", "second"])),
    f"{PARAMS}.model": Effect(
        upstream_name, ("openai/gpt-4o", "gpt-4o"), ("openai/rules", "rules")
    ),
    f"{PARAMS}.api_key": Effect(
        key_for_the_teacher, ("sk-one", "Bearer sk-one"), ("sk-other", "Bearer sk-other")
    ),
    f"{PARAMS}.api_base": Effect(
        teachers_address,
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
        ("http://127.0.0.1:2/v1/", "http://127.0.0.1:2/v1"),
    ),
    f"{PARAMS}.input_cost_per_token": Effect(
        teachers_price, (0.25, Price(0.25, 0)), (0.5, Price(0.5, 0)), UNPRICED
    ),
    f"{PARAMS}.output_cost_per_token": Effect(
        teachers_price, (0.25, Price(0, 0.25)), (0.5, Price(0, 0.5)), UNPRICED
    ),
}

LITELLM: dict[str, Effect] = {
    block: Effect(handed_to_litellm(block), (None, None), ({"some": "thing"}, {"some": "thing"}))
    for block in LITELLM_BLOCKS
} | {
    "general_settings": Effect(
        handed_to_litellm("general_settings"),
        ({"alerting": []}, {"alerting": [], "master_key": f"os.environ/{KEY_VARIABLE}"}),
        ({"master_key": "sk-m"}, {"master_key": "sk-m"}),
    )
}

SERVING: dict[str, Effect] = {
    **MODEL_LIST,
    **LITELLM,
    "data_dir": Effect(folder_of_the_journal, ("here", "here"), ("there", "there")),
    "server.host": Effect(
        where_it_listens,
        ("127.0.0.1", f"127.0.0.1:{PORT}"),
        ("192.0.2.1", f"192.0.2.1:{PORT}"),
        {**WITH_A_KEY, "server.port": PORT},
    ),
    "server.port": Effect(
        where_it_listens, (PORT, f"127.0.0.1:{PORT}"), (OTHER_PORT, f"127.0.0.1:{OTHER_PORT}")
    ),
    "server.workers": Effect(planned_workers, (1, ["proxy"]), (2, ["proxy 0", "proxy 1"])),
    "server.drain_s": Effect(status_of_an_answer_that_is_late, (20, 200), (0.1, None)),
    "server.keys": Effect(
        status_of("hello"), ([], 200), ([{"key": "sk-of-somebody-else", "name": "app"}], 401)
    ),
    "server.keys.key": Effect(
        status_of("hello"), (CLIENT_KEY, 200), ("sk-of-somebody-else", 401), WITH_A_KEY
    ),
    "server.keys.name": Effect(keys_on_the_screen, ("app", "app"), ("cron", "cron"), WITH_A_KEY),
    "server.keys.may": Effect(status_of("hello"), (["use"], 200), (["operate"], 403), WITH_A_KEY),
    "server.keys.task": Effect(task_of_the_trace, (None, None), ("triage", "triage"), WITH_A_KEY),
    "server.cors_origins": Effect(status_of_a_preflight, ([], 403), ([ORIGIN], 204)),
    "server.body_limit_mb": Effect(status_of("x" * 20_000), (0.01, 413), (0.1, 200)),
    "server.head_timeout_s": Effect(
        answer_to(b"POST /v1/chat/completions HTTP/1.1\r\n"), (0.1, b"HTTP/1.1 408"), (60, b"")
    ),
    "server.body_kb_per_s": Effect(
        answer_to(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 90\r\n\r\n{"),
        (1, b"HTTP/1.1 408"),
        (0, b""),
        {"server.head_timeout_s": 0.1},
    ),
    "server.log_level": Effect(levels_logged, ("info", {"INFO"}), ("error", set())),
    "teacher.model": Effect(
        key_for_the_teacher,
        (None, "Bearer sk-first"),
        ("second", "Bearer sk-second"),
        {"model_list": [FIRST, SECOND]},
    ),
    "teacher.connect_timeout_s": Effect(
        status_of_a_connection_that_hangs, (0.1, 504), (50, 502), {"teacher.read_timeout_s": 50}
    ),
    "teacher.read_timeout_s": Effect(
        status_of_a_slow_answer, (0.1, 504), (50, 200), {"teacher.connect_timeout_s": 50}
    ),
    "teacher.litellm_start_timeout_s": Effect(
        status_of_a_request_before_litellm,
        (0.1, 503),
        (50, 200),
        {f"{PARAMS}.model": "anthropic/some"},
    ),
}
