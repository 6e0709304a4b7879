"""`understudy serve`: starts what the config needs, and keeps it running.

    listening socket ──▶ proxy           answers clients; never waits for the two below
                         control plane   collects, distils, serves students, reports the status
                         LiteLLM         only when model_list names teachers that need it

The socket is bound here and handed to the proxy's workers, so that connections queue while one
restarts. SIGHUP has the config read again (cli.serve.reload); a terminal that closes stops
everything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from cli.serve.accepted import AcceptedConfigs
from cli.serve.data_folder import LOCK_NAME, HeldFolder, ServeNote, hold_data_dir
from cli.serve.listen import listen, reserved_port, wait_for_answer
from cli.serve.plan import CONTROL_PLANE, ServeContext, litellm_for, plan_children
from cli.serve.supervisor import Supervisor
from cli.serve.terminal import Terminal
from store.errors import ProductError
from store.logs import configure_logging
from store.process.control_page import ControlPage
from store.process.descriptors import MIN_DESCRIPTORS, raise_descriptor_limit
from store.settings.config import config_from_yaml, read_config
from store.settings.teachers import teacher_pool

# before the control plane and LiteLLM take the CPU for their imports
HEAD_START_S = 2.0
_TERMINAL_CLOSES_S = 0.1  # SIGHUP may come before the kernel has removed the terminal

log = logging.getLogger("understudy.serve")


def serve(config_path: Path) -> None:
    """Runs everything until SIGTERM or SIGINT; a second signal stops without grace.

    SIGHUP has the config read again, unless it comes from a terminal that closes. Raises
    ConfigError before anything is started, and ProductError when the port or the data folder is in
    use.
    """
    content = read_config(config_path)
    config = config_from_yaml(content, where=str(config_path))
    teacher_pool(config)  # a key that is not set shows here, not at the first request
    if (files := raise_descriptor_limit()) < MIN_DESCRIPTORS:
        raise ProductError(
            f"only {files} files may be open at a time, and each connection is one: serve needs "
            f"{MIN_DESCRIPTORS} at least (ulimit -n, or LimitNOFILE of the service)"
        )
    configure_logging("info")  # its lines are few, and shown at any `server.log_level`
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(hold_data_dir(config.data_dir))
        listener = stack.enter_context(listen(config.server))
        control_port = stack.enter_context(reserved_port())
        litellm_ports = stack.enter_context(contextlib.ExitStack())
        context = ServeContext.create(config_path, listener, control_port)
        stack.callback(context.control_page.close)
        copies = AcceptedConfigs(config.data_dir)
        accepted = copies.write(content)
        copies.keep_only([accepted])
        litellm = litellm_for(context, config, litellm_ports)
        if litellm is not None:
            copies.remember(litellm.file)
        plan = plan_children(context, config, accepted, litellm)
        supervisor = Supervisor(plan.specs, say=_say)
        terminal = Terminal()
        with stop_on_signals(supervisor, terminal):
            supervisor.start(plan.proxies[0].name)
            note = ServeNote(os.getpid(), plan.url, operator_key=context.control_token)
            held.leave_note(note)
            from cli.serve.banner import show  # noqa: PLC0415  (rich loads while the proxy does)

            show(plan)
            wait_for_answer(listener, HEAD_START_S)
            from cli.serve.reload import Reload  # noqa: PLC0415  (the proxy comes first)

            reload = Reload(
                context,
                plan,
                accepted,
                supervisor=supervisor,
                copies=copies,
                litellm_ports=litellm_ports.pop_all(),
                note=held.leave_note,
                say=_say,
            )
            stack.callback(reload.close)
            supervisor.run(
                on_request=lambda: _hung_up(supervisor, terminal, reload),
                on_tick=lambda: _tick(supervisor, context.control_page, terminal, copies, held),
                on_stop=listener.close,
            )
    _say("stopped")


def _tick(
    supervisor: Supervisor,
    page: ControlPage,
    terminal: Terminal,
    copies: AcceptedConfigs,
    held: HeldFolder,
) -> None:
    """Looks after what tells nobody that something happened to it."""
    terminal.look()
    state = page.state
    if state.hung is not None:
        supervisor.kill(CONTROL_PLANE, state.pid, state.hung)
    for file in copies.restore():
        _say(f"{file.name} in the data folder was changed or deleted, and is written again")
    if held.restore():
        _say(f"{LOCK_NAME} in the data folder was changed or deleted, and is written again")


def _hung_up(supervisor: Supervisor, terminal: Terminal, reload: Callable[[], None]) -> None:
    """Handles a SIGHUP: a stop, a reload, or nothing."""
    time.sleep(_TERMINAL_CLOSES_S)
    meaning = terminal.hung_up()
    if meaning == "stop":
        supervisor.stop()
    elif meaning == "reload":
        reload()


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor, terminal: Terminal) -> Iterator[None]:
    """Within it, SIGTERM and SIGINT stop the supervisor, and SIGHUP becomes a request to it."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    def hang_up(_signal: int, _frame: FrameType | None) -> None:
        # at once, because a reload that is under way may take long
        if terminal.hung_up() == "stop":
            supervisor.stop()
        else:
            supervisor.request()

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hang_up}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    log.info("%s", line)
