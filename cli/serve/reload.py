"""SIGHUP: the config is read again, and what it changes takes effect without dropping a request.

    read ─▶ faults, or a setting that needs a restart? ─▶ refused: the old config goes on, whole
      │
      ├▶ new LiteLLM, if its config changed ─▶ it listens
      ├▶ new proxies on the same socket ─▶ they accept ─▶ the old ones drain
      ├▶ old control plane stops ─▶ the new one starts (DuckDB lets one process in)
      └▶ the old LiteLLM ends, once the old proxies are gone

All of a config is applied or nothing: what runs is always what once stood in the file.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cli.serve.accepted import FOLDER, Accepted
from cli.serve.changes import Changes, changes
from cli.serve.children import Child
from cli.serve.listen import listens
from cli.serve.litellm_child import LitellmChild
from cli.serve.plan import (
    CONTROL_PLANE,
    CUT_GRACE_S,
    LITELLM,
    Plan,
    ServeContext,
    litellm_for,
    plan_children,
)
from cli.serve.supervisor import Supervisor
from store.errors import ConfigError, ProductError, UnderstudyError
from store.jsontext import JsonObject
from store.process.runtime import RETIRE, RETIRE_S
from store.settings.config import Config, config_from_yaml, read_config
from store.settings.teachers import teacher_pool

PROXIES_START_S = 30.0
_LEFT_S = 5.0  # for the old proxies to accept no more, so that "done" means the new keys and limits
GOES_ON = "the old config goes on"
SAID_LIMIT = 4_000  # characters of an outcome that are noted


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What runs beside the old, ready to take over."""

    plan: Plan
    accepted: Path
    litellm: list[Child]
    proxies: list[Child]
    ports: contextlib.ExitStack  # that keep the port of this LiteLLM for it


class Reload:
    """Reads the config again each time that it is called, in the supervisor's thread.

    Leaves a note of each outcome for whoever asked: `reloads` counts those that began, `reloaded`
    those that ended; `said` is the last outcome and `applied` whether the config holds now.
    """

    def __init__(
        self,
        context: ServeContext,
        plan: Plan,
        accepted: Path,
        *,
        supervisor: Supervisor,
        copies: Accepted,
        litellm_ports: contextlib.ExitStack,
        note: Callable[[JsonObject], None],
        say: Callable[[str], None],
    ) -> None:
        self._context = context
        self._plan = plan
        self._proxies_config = self._control_config = accepted
        self._supervisor = supervisor
        self._copies = copies
        self._litellm_ports = litellm_ports  # what keeps the port of LiteLLM for it
        self._note = note
        self._say = say
        self._begun = 0
        self._tell(0, "", applied=True)

    def close(self) -> None:
        """Gives back what is held for the children."""
        self._litellm_ports.close()
        self._plan.roster.close()

    def __call__(self) -> None:
        """Reads the config, applies it, and says what became of it. Never raises."""
        self._begun += 1
        self._tell(self._begun - 1, "", applied=True)
        try:
            said, applied = self._reload(), True
        except (UnderstudyError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            said, applied = f"{why}\n{GOES_ON}", False
        self._say(f"reload{'' if applied else ' refused'}: {said}")
        self._tell(self._begun, said, applied=applied)

    def _tell(self, ended: int, said: str, *, applied: bool) -> None:
        self._note(
            {
                "pid": os.getpid(),
                "url": self._plan.url,
                "config": str(self._context.config_path),
                "reloads": self._begun,
                "reloaded": ended,
                "said": said[:SAID_LIMIT],
                "applied": applied,
            }
        )

    def _reload(self) -> str:
        """What was changed. Raises UnderstudyError or OSError when nothing was."""
        content = read_config(self._context.config_path)
        config = config_from_yaml(content, where=str(self._context.config_path))
        teacher_pool(config)  # a key that is not set
        for warning in config.warnings:
            if warning not in self._plan.config.warnings:
                self._say(warning)
        found = changes(self._plan.config, config)
        if not found.settings:
            return "nothing has changed"
        if found.fixed:
            raise ConfigError(
                f"{', '.join(found.fixed)} cannot change while it runs, and nothing was applied: "
                "take that back, or stop `understudy serve` and start it again"
            )
        began = time.monotonic()
        with contextlib.ExitStack() as undo:
            steps = self._prepare(config, content, found, undo)
            undo.pop_all()
        done = self._apply(steps, found)
        return f"{', '.join(found.settings)} changed: {done}, in {time.monotonic() - began:.1f} s"

    def _prepare(
        self, config: Config, content: bytes, found: Changes, undo: contextlib.ExitStack
    ) -> _Prepared:
        """Starts what can run beside the old. Whatever is raised here, `undo` takes it back."""
        accepted = self._copies.write(content)
        undo.callback(self._forget_copies)
        ports = undo.enter_context(contextlib.ExitStack())
        litellm, its_child = self._plan.litellm, []
        if found.litellm:
            name = f"{FOLDER}/litellm-{self._begun}.yaml"
            litellm = litellm_for(self._context, config, ports, name)
            its_child = self._start_litellm(litellm, config) if litellm else []
            undo.callback(self._supervisor.stop_candidates, its_child)
        plan = plan_children(self._context, config, accepted, litellm)
        if found.proxies:
            undo.callback(plan.roster.close)
            proxies = self._start_proxies(plan)
        else:
            plan.roster.close()
            plan = replace(plan, proxies=self._plan.proxies, roster=self._plan.roster)
            proxies = []
        return _Prepared(plan, accepted, its_child, proxies, ports)

    def _start_litellm(self, litellm: LitellmChild, config: Config) -> list[Child]:
        self._say("reload: LiteLLM is started with its new config, which takes some 15 s")
        started = self._supervisor.start_beside(
            [litellm.spec], lambda: listens(litellm.port), config.teacher.litellm_start_timeout_s
        )
        if started is None:
            raise ProductError(
                f"LiteLLM did not start with its new config; its output is in {litellm.spec.log}"
            )
        return started

    def _start_proxies(self, plan: Plan) -> list[Child]:
        workers = range(plan.roster.workers)
        started = self._supervisor.start_beside(
            plan.proxies, lambda: all(map(plan.roster.alive, workers)), PROXIES_START_S
        )
        if started is None:
            raise ProductError("the proxy did not start with the new config; see its output")
        return started

    def _apply(self, ready: _Prepared, found: Changes) -> str:
        """Puts what is ready in the place of the old; names who was replaced."""
        before, gone, done = self._plan, [], []
        if found.proxies:
            gone = self._supervisor.replace(
                ready.proxies,
                [spec.name for spec in before.proxies],
                number=RETIRE,
                grace_s=RETIRE_S + CUT_GRACE_S,
            )
            old = before.roster
            self._supervisor.wait_until(lambda: not any(row.alive for row in old), _LEFT_S)
            old.close()
            self._proxies_config = ready.accepted
            count = len(ready.proxies)
            done.append("a new proxy" if count == 1 else f"{count} new proxies")
        if found.control_plane:
            self._supervisor.restart_with(CONTROL_PLANE, ready.plan.control_plane)
            self._control_config = ready.accepted
            done.append("a new control plane")
        if found.litellm:
            its_old = [LITELLM] if before.litellm else []
            self._supervisor.replace(ready.litellm, its_old, after=gone)
            self._litellm_ports.close()
            self._litellm_ports = ready.ports
            done.append("a new LiteLLM" if ready.litellm else "no LiteLLM")
        self._plan = ready.plan
        self._forget_copies()
        return ", ".join(done)

    def _forget_copies(self) -> None:
        of_litellm = [self._plan.litellm.file] if self._plan.litellm else []
        self._copies.keep_only([self._proxies_config, self._control_config, *of_litellm])
