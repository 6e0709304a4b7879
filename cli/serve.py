"""`understudy serve`: finds out what to start, starts it, and keeps it running.

    listening socket ──▶ proxy           answers clients; never waits for the two below
                         control plane   collects, distils, serves students, tells the status
                         LiteLLM         only when model_list names teachers that need it

The socket is bound here and handed to the proxy, so that connections queue while a proxy restarts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import orjson

from cli.litellm_child import litellm_child
from cli.supervisor import ChildSpec, Supervisor
from store import leash
from store.config import Config, ServerSettings, load_config
from store.errors import ConfigError, ProductError
from store.runtime import Runtime
from store.teachers import needs_litellm, teacher_pool

PROXY = "proxy"
CONTROL_PLANE = "control plane"
# together below the 30 s that most service managers wait before they kill
PROXY_GRACE_S = 15.0
CONTROL_GRACE_S = 8.0
# importing the control plane and LiteLLM takes the CPU that the proxy needs to be there soon
HEAD_START_S = 2.0
BACKLOG = 2048
LOCK_NAME = "serve.lock"
LISTEN_ADVICE: dict[int | None, str] = {
    errno.EADDRINUSE: "the port is in use: stop what uses it, or set server.port to another",
    errno.EACCES: "not allowed: choose a server.port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address: correct server.host",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What `serve` is about to run, for the supervisor and for the screen."""

    config: Config
    config_path: Path
    url: str  # where clients reach the proxy, without /v1
    specs: list[ChildSpec] = field(repr=False)  # in the order of stopping
    notes: list[str]


def serve(config_path: Path) -> None:
    """Runs everything until SIGTERM, SIGINT or SIGHUP; a second signal stops without grace.

    Raises ConfigError before anything is started, and ProductError when the port or the data
    folder is in use.
    """
    config = load_config(config_path)
    teacher_pool(config)  # a key that is not set shows here, not at the first request
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(hold_data_dir(config.data_dir))
        listener = stack.enter_context(listen(config.server))
        ports = [stack.enter_context(reserved_port()) for _ in range(2)]
        plan = plan_children(config, config_path, listener, *ports)
        os.pwrite(lock, orjson.dumps({"pid": os.getpid(), "url": plan.url}), 0)
        supervisor = Supervisor(plan.specs, say=_say)
        with stop_on_signals(supervisor):
            supervisor.start(PROXY)
            from cli.banner import show  # noqa: PLC0415  (rich loads while the proxy does)

            show(plan)
            wait_until_it_answers(listener, HEAD_START_S)
            supervisor.run()
    _say("stopped")


def plan_children(
    config: Config,
    config_path: Path,
    listener: socket.socket,
    control_port: int,
    litellm_port: int,
) -> Plan:
    """Addresses and secrets of this run, and a spec for each child.

    Writes LiteLLM's config into the data folder when a teacher needs it.
    """
    path = config_path.absolute()
    litellm = None
    if needs_litellm(config):
        litellm = litellm_child(config, config_folder=path.parent, port=litellm_port)
    runtime = Runtime(
        config_path=str(path),
        control_port=control_port,
        control_token=secrets.token_urlsafe(32),
        litellm_url=litellm.url if litellm else None,
        litellm_key=litellm.key if litellm else None,
    )
    # a folder named like one of our packages, where the user happens to stand, must not be imported
    env = {**runtime.environment(), "PYTHONSAFEPATH": "1"}
    fd = listener.fileno()
    specs = [
        ChildSpec(
            name=PROXY,
            argv=leash.command("proxy.server", "--fd", str(fd)),
            env=env,
            pass_fds=(fd,),
            grace_s=PROXY_GRACE_S,
        ),
        ChildSpec(
            name=CONTROL_PLANE,
            argv=leash.command("distill.control"),
            env=env,
            grace_s=CONTROL_GRACE_S,
        ),
    ]
    notes = []
    if litellm:
        specs.append(litellm.spec)
        notes.append("teachers are called through LiteLLM, which needs some 15 s to start")
        notes += [f"LiteLLM runs without general_settings.{name}" for name in litellm.left_out]
    return Plan(config, path, _url(listener), specs, notes)


@contextlib.contextmanager
def hold_data_dir(folder: Path) -> Iterator[int]:
    """Creates the data folder, readable by its owner alone, and keeps others from serving on it.

    Gives the descriptor of the locked file. Raises ProductError when another `serve` holds it,
    ConfigError when it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"data_dir {folder} cannot be used ({error.strerror}): "
            "give it to the user that runs understudy, or choose another"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = running_server(folder)
        who = f" (PID {holder['pid']}, {holder['url']})" if holder else ""
        os.close(handle)
        raise ProductError(
            f"another understudy serves from {folder}{who}: stop it, or use another data_dir"
        ) from None
    try:
        os.ftruncate(handle, 0)
        yield handle
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def running_server(folder: Path) -> dict[str, str | int] | None:
    """PID and URL of the `serve` on this data folder, as it wrote them down; None without one.

    A `serve` that was killed leaves them there.
    """
    try:
        found = orjson.loads((folder / LOCK_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    whole = isinstance(found, dict) and {"pid", "url"} <= found.keys()
    return found if whole else None


def listen(server: ServerSettings) -> socket.socket:
    """The listening socket; its descriptor may be inherited. Raises ProductError."""
    where = f"{server.host}:{server.port}"
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        # a host name that cannot be resolved has numbers of its own, which may be the same
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = LISTEN_ADVICE.get(number, f"{error.strerror}: correct server.host and server.port")
        raise ProductError(f"cannot listen on {where}: {why}") from None
    listener.set_inheritable(True)
    return listener


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port on loopback for a child that will bind it by number.

    On Linux a socket that is bound and does not listen keeps the port from being given to
    anybody's outgoing connection, and lets a child bind it all the same.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """Within it, SIGTERM, SIGINT and SIGHUP stop the supervisor."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until_it_answers(listener: socket.socket, at_most_s: float) -> bool:
    """Asks for /health until there is any answer; False when there was none in time."""
    deadline = time.monotonic() + at_most_s
    there = _reachable(listener)
    with contextlib.suppress(OSError), socket.create_connection(there, at_most_s) as asked:
        asked.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        readable, _, _ = select.select([asked], [], [], max(0.0, deadline - time.monotonic()))
        return bool(readable) and bool(asked.recv(1))
    return False


def _reachable(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def _url(listener: socket.socket) -> str:
    host, port = _reachable(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone ends no server
        print(f"understudy: {line}", file=sys.stderr, flush=True)
