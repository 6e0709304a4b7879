"""Instructions that one proxy worker executes for a request, counted by valgrind.

    .venv/bin/python -m bench.instructions [--checkout FOLDER] [--requests 1600]

CPU time on a shared machine differs by a tenth from run to run; the number of instructions hardly
does. It leaves out the kernel and what caches cost, so it stands beside bench/proxy.py, not in its
place. The worker runs under cachegrind, without its control plane, and 16 connections ask in turn.
Counted is the difference of two runs, less what an idle worker executes in the same time.
`--checkout`: the state to measure, also one from before the proxy's files were moved.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.paths import ROOT
from bench.upstream import PACED, running_upstream
from store.jsontext import JsonObject

CONNECTIONS = 16
TIMEOUT_S = 60.0  # of an answer; a worker starts some 20 times more slowly under valgrind
WARM_UP = 20  # requests before both runs are alike
_TOTAL = re.compile(r"I\s+refs:\s+([\d,]+)")
# the environment of a worker, in the words of the checkout that is measured
_ENVIRONMENT = """
import importlib, json, sys
runtime = importlib.import_module(sys.argv[1]).Runtime
print(json.dumps(runtime(sys.argv[2], control_port=1, control_token="t").environment()))
"""


def instructions(checkout: Path, requests: int) -> int:
    """Instructions a request. Raises RuntimeError where valgrind or the worker fails."""
    if shutil.which("valgrind") is None:
        raise RuntimeError("valgrind is not installed (Debian: apt install valgrind)")
    with running_upstream(0, 3, 0.0) as upstream:
        few = requests // 10
        short, long = (_run(checkout, upstream, idle_s=s) for s in (2.0, 8.0))
        idle = (long[0] - short[0]) / (long[1] - short[1])
        less, more = (_run(checkout, upstream, requests=n) for n in (few, requests))
    return round((more[0] - less[0] - idle * (more[1] - less[1])) / (requests - few))


def _run(
    checkout: Path, upstream: str, *, requests: int = 0, idle_s: float = 0.0
) -> tuple[int, float]:
    """All instructions of one worker, and the seconds after its warm-up."""
    with (
        tempfile.TemporaryDirectory(prefix="understudy-bench-") as name,
        socket.create_server(("127.0.0.1", 0), backlog=64) as listening,
    ):
        config = Path(name) / "config.yaml"
        config.write_text(json.dumps(_config(upstream, Path(name) / "data")))
        listening.set_inheritable(True)
        before = not (checkout / "proxy/worker.py").exists()  # the proxy's files were moved
        worker = "proxy.server" if before else "proxy.worker"
        runtime = "store.runtime" if before else "store.process.runtime"
        env = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
        env |= json.loads(
            subprocess.check_output(
                [sys.executable, "-c", _ENVIRONMENT, runtime, str(config)], cwd=checkout, env=env
            )
        )
        tool = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ]
        command = [*tool, sys.executable, "-m", worker, "--fd", str(listening.fileno())]
        with (Path(name) / "valgrind.txt").open("w+") as said:
            process = subprocess.Popen(
                command, cwd=checkout, env=env, pass_fds=[listening.fileno()], stderr=said
            )
            try:
                port = listening.getsockname()[1]
                _ask(port, WARM_UP)
                began = time.monotonic()
                time.sleep(idle_s)
                clients = [
                    threading.Thread(target=_ask, args=(port, requests // CONNECTIONS))
                    for _ in range(CONNECTIONS)
                ]
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
                took = time.monotonic() - began
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(120)
            said.seek(0)
            counted = _TOTAL.search(said.read())
    if counted is None:
        raise RuntimeError("valgrind counted nothing: the worker did not start or did not end")
    return int(counted[1].replace(",", "")), took


def _config(upstream: str, data_dir: Path) -> JsonObject:
    params = {"model": f"openai/{PACED}", "api_base": f"{upstream}/v1", "api_key": "sk-bench"}
    return {
        "model_list": [{"model_name": PACED, "litellm_params": params}],
        "data_dir": str(data_dir),
    }


def _ask(port: int, count: int) -> None:
    """Asks so often on one connection, and reads each answer."""
    if not count:
        return
    messages = [{"role": "system", "content": "You sort tickets. " * 10}]
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain,
        plain.makefile("rb") as lines,
    ):
        for number in range(count):
            ticket = {"role": "user", "content": f"ticket {number} " * 20}
            body = json.dumps({"model": PACED, "messages": [*messages, ticket]}).encode()
            plain.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: OpenAI\r\n"
                b"accept: application/json\r\ncontent-type: application/json\r\n"
                b"x-understudy-task: bench\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            status = lines.readline()
            if b" 200 " not in status:
                raise RuntimeError(f"the worker answered {status.decode('latin-1').strip()}")
            length = 0
            while (line := lines.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            lines.read(length)


def main() -> None:
    """Prints the instructions a request."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--requests", type=int, default=1600)
    arguments = parser.parse_args()
    try:
        counted = instructions(arguments.checkout.resolve(), arguments.requests)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    print(f"{counted:,} instructions a request")


if __name__ == "__main__":
    main()
