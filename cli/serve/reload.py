"""SIGHUP: reads the config again and applies it without dropping a request.

    read ─▶ faults, or a setting that needs a restart? ─▶ refused: the old config goes on, whole
      │
      ├▶ new LiteLLM, if its config changed ─▶ it listens
      ├▶ new proxies on the same socket ─▶ they accept ─▶ the old ones drain
      ├▶ old control plane stops ─▶ the new one starts (DuckDB lets one process in)
      └▶ the old LiteLLM ends, once the old proxies have ended

A config is applied as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cli.serve.accepted import FOLDER, AcceptedConfigs
from cli.serve.changes import Changes, changes
from cli.serve.children import Child
from cli.serve.data_folder import ServeNote
from cli.serve.listen import listens
from cli.serve.litellm_child import LitellmChild
from cli.serve.plan import (
    CONTROL_PLANE,
    CUT_GRACE_S,
    LITELLM,
    ServeContext,
    ServePlan,
    litellm_for,
    plan_children,
)
from cli.serve.supervisor import Supervisor
from store.errors import ConfigError, ProductError, UnderstudyError
from store.process.runtime import RETIRE, RETIRE_S
from store.settings.config import Config, config_from_yaml, read_config
from store.settings.teachers import teacher_pool

PROXIES_START_S = 30.0
_STOP_ACCEPTING_S = 5.0  # "done" means that the new keys and limits hold
OLD_CONFIG_STAYS = "the old config goes on"
MAX_OUTCOME_CHARS = 4_000  # of an outcome in the note


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The new children, running beside the old ones and ready to replace them."""

    plan: ServePlan
    accepted: Path
    litellm: list[Child]
    proxies: list[Child]
    ports: contextlib.ExitStack  # reserves the port of this LiteLLM


class Reload:
    """Reads the config again on each call, in the supervisor's thread.

    Leaves a note of each outcome, which `understudy reload` reads.
    """

    def __init__(
        self,
        context: ServeContext,
        plan: ServePlan,
        accepted: Path,
        *,
        supervisor: Supervisor,
        copies: AcceptedConfigs,
        litellm_ports: contextlib.ExitStack,
        note: Callable[[ServeNote], None],
        say: Callable[[str], None],
    ) -> None:
        self._context = context
        self._plan = plan
        self._proxies_config = self._control_config = accepted
        self._supervisor = supervisor
        self._copies = copies
        self._litellm_ports = litellm_ports  # reserves LiteLLM's port
        self._note = note
        self._say = say
        self._begun = 0
        self._write_note(0, "", applied=True)

    def close(self) -> None:
        """Releases LiteLLM's port and the workers' page."""
        self._litellm_ports.close()
        self._plan.roster.close()

    def __call__(self) -> None:
        """Reads the config, applies it, and reports the outcome. Never raises."""
        self._begun += 1
        self._write_note(self._begun - 1, "", applied=True)
        try:
            outcome, applied = self._reload(), True
        except (UnderstudyError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            outcome, applied = f"{why}\n{OLD_CONFIG_STAYS}", False
        self._say(f"reload{'' if applied else ' refused'}: {outcome}")
        self._write_note(self._begun, outcome, applied=applied)

    def _write_note(self, ended: int, outcome: str, *, applied: bool) -> None:
        self._note(
            ServeNote(
                pid=os.getpid(),
                url=self._plan.url,
                config=str(self._context.config_path),
                reloads=self._begun,
                reloaded=ended,
                said=outcome[:MAX_OUTCOME_CHARS],
                applied=applied,
                operator_key=self._context.control_token,
            )
        )

    def _reload(self) -> str:
        """The changes in words. Raises UnderstudyError or OSError if nothing was applied."""
        content = read_config(self._context.config_path)
        config = config_from_yaml(content, where=str(self._context.config_path))
        teacher_pool(config)  # a key that is not set
        for warning in config.warnings:
            if warning not in self._plan.config.warnings:
                self._say(warning)
        changed = changes(self._plan.config, config)
        if not changed.settings:
            return "nothing has changed"
        if changed.fixed:
            raise ConfigError(
                f"{', '.join(changed.fixed)} cannot change while it runs, and nothing was applied: "
                "take that back, or stop `understudy serve` and start it again"
            )
        began = time.monotonic()
        with contextlib.ExitStack() as undo:
            prepared = self._prepare(config, content, changed, undo)
            undo.pop_all()
        done = self._apply(prepared, changed)
        return f"{', '.join(changed.settings)} changed: {done}, in {time.monotonic() - began:.1f} s"

    def _prepare(
        self, config: Config, content: bytes, changed: Changes, undo: contextlib.ExitStack
    ) -> _Prepared:
        """Starts what can run beside the old. If it raises, `undo` takes it back."""
        accepted = self._copies.write(content)
        undo.callback(self._forget_copies)
        ports = undo.enter_context(contextlib.ExitStack())
        litellm, litellm_child = self._plan.litellm, []
        if changed.litellm:
            name = f"{FOLDER}/litellm-{self._begun}.yaml"
            litellm = litellm_for(self._context, config, ports, name)
            litellm_child = self._start_litellm(litellm, config) if litellm else []
            if litellm is not None:
                self._copies.remember(litellm.file)
            undo.callback(self._supervisor.stop_candidates, litellm_child)
        plan = plan_children(self._context, config, accepted, litellm)
        if changed.proxies:
            undo.callback(plan.roster.close)
            proxies = self._start_proxies(plan)
        else:
            plan.roster.close()
            plan = replace(plan, proxies=self._plan.proxies, roster=self._plan.roster)
            proxies = []
        return _Prepared(plan, accepted, litellm_child, proxies, ports)

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

    def _start_proxies(self, plan: ServePlan) -> list[Child]:
        workers = range(plan.roster.workers)
        started = self._supervisor.start_beside(
            plan.proxies, lambda: all(map(plan.roster.alive, workers)), PROXIES_START_S
        )
        if started is None:
            raise ProductError("the proxy did not start with the new config; see its output")
        return started

    def _apply(self, prepared: _Prepared, changed: Changes) -> str:
        """Replaces the old children by the prepared ones; returns what was replaced, in words."""
        before, replaced, done = self._plan, list[Child](), list[str]()
        if changed.proxies:
            replaced = self._supervisor.replace(
                prepared.proxies,
                [spec.name for spec in before.proxies],
                number=RETIRE,
                grace_s=RETIRE_S + CUT_GRACE_S,
            )
            old = before.roster
            self._supervisor.wait_until(
                lambda: not any(row.alive for row in old), _STOP_ACCEPTING_S
            )
            old.close()
            self._proxies_config = prepared.accepted
            count = len(prepared.proxies)
            done.append("a new proxy" if count == 1 else f"{count} new proxies")
        if changed.control_plane:
            self._supervisor.restart_with(CONTROL_PLANE, prepared.plan.control_plane)
            self._control_config = prepared.accepted
            done.append("a new control plane")
        if changed.litellm:
            old_litellm = [LITELLM] if before.litellm else []
            self._supervisor.replace(prepared.litellm, old_litellm, after=replaced)
            self._litellm_ports.close()
            self._litellm_ports = prepared.ports
            done.append("a new LiteLLM" if prepared.litellm else "no LiteLLM")
        self._plan = prepared.plan
        self._forget_copies()
        return ", ".join(done)

    def _forget_copies(self) -> None:
        of_litellm = [self._plan.litellm.file] if self._plan.litellm else []
        self._copies.keep_only([self._proxies_config, self._control_config, *of_litellm])
