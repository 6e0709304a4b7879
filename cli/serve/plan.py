"""What `understudy serve` runs for a config: a spec for each child, with addresses and secrets."""

from __future__ import annotations

import contextlib
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from cli.serve.children import ChildSpec
from cli.serve.listen import reserved_port, url_of
from cli.serve.litellm_child import LitellmChild, litellm_child
from store.process import leash
from store.process.control_page import ControlPage
from store.process.runtime import Runtime
from store.process.workers import Roster
from store.settings.config import Config
from store.settings.teachers import needs_litellm

PROXY = "proxy"
CONTROL_PLANE = "control plane"
LITELLM = "LiteLLM"
CONTROL_GRACE_S = 8.0
CUT_GRACE_S = 2.0  # for the worker's own shutdown after draining
PROXY_STAGE, CONTROL_STAGE = range(2)  # LiteLLM is the third


@dataclass(frozen=True, slots=True)
class ServeContext:
    """What stays the same for one run of `serve`, through all reloads."""

    config_path: Path  # as the user named it, absolute
    listener: socket.socket = field(repr=False)
    control_port: int
    control_token: str = field(repr=False)
    control_page: ControlPage = field(repr=False)

    @classmethod
    def create(cls, config_path: Path, listener: socket.socket, control_port: int) -> ServeContext:
        """With a new token and a new page."""
        return cls(
            config_path.absolute(),
            listener,
            control_port,
            secrets.token_urlsafe(32),
            ControlPage.create(),
        )


@dataclass(frozen=True, slots=True)
class ServePlan:
    """The children for one config, for the supervisor and the start screen."""

    config: Config
    config_path: Path  # as the user named it
    url: str  # where clients reach the proxy, without /v1
    proxies: list[ChildSpec] = field(repr=False)
    control_plane: ChildSpec = field(repr=False)
    litellm: LitellmChild | None
    roster: Roster = field(repr=False)  # of these proxies

    @property
    def specs(self) -> list[ChildSpec]:
        """All children, in the order of stopping."""
        return [
            *self.proxies,
            self.control_plane,
            *([self.litellm.spec] if self.litellm else []),
        ]

    @property
    def notes(self) -> list[str]:
        """Hints for the start screen."""
        notes = list(self.config.warnings)
        if self.litellm is not None:
            notes.append("teachers are called through LiteLLM, which needs some 15 s to start")
            notes += [
                f"LiteLLM runs without general_settings.{name}" for name in self.litellm.left_out
            ]
        return notes


def litellm_for(
    context: ServeContext,
    config: Config,
    ports: contextlib.ExitStack,
    file_name: str = "litellm.yaml",
) -> LitellmChild | None:
    """LiteLLM as this config needs it, with a port that `ports` keeps for it; None if it does not.

    Writes its config into the data folder. Raises ConfigError.
    """
    if not needs_litellm(config):
        return None
    return litellm_child(
        config,
        config_folder=context.config_path.parent,
        port=ports.enter_context(reserved_port()),
        file_name=file_name,
    )


def plan_children(
    context: ServeContext, config: Config, accepted: Path, litellm: LitellmChild | None
) -> ServePlan:
    """A spec for each child. They read the config from `accepted`, a copy that nobody edits."""
    workers = config.server.workers
    roster = Roster.create(workers)
    fd, page_fd = context.listener.fileno(), context.control_page.fd

    def env(worker: int = 0, roster_fd: int | None = None) -> dict[str, str]:
        runtime = Runtime(
            config_path=str(accepted.absolute()),
            control_port=context.control_port,
            control_token=context.control_token,
            litellm_url=litellm.url if litellm else None,
            litellm_key=litellm.key if litellm else None,
            worker=worker,
            workers=workers,
            roster_fd=roster_fd,
            control_fd=page_fd,
        )
        # a folder in the working directory named like one of our packages must not be imported
        return {**runtime.environment(), "PYTHONSAFEPATH": "1"}

    proxies = [
        ChildSpec(
            name=PROXY if workers == 1 else f"{PROXY} {worker}",
            argv=leash.command("proxy.worker", "--fd", str(fd)),
            env=env(worker, roster.fd),
            pass_fds=(fd, roster.fd, page_fd),
            grace_s=config.server.drain_s + CUT_GRACE_S,
            stage=PROXY_STAGE,
        )
        for worker in range(workers)
    ]
    control_plane = ChildSpec(
        name=CONTROL_PLANE,
        argv=leash.command("distill.control"),
        env=env(),
        pass_fds=(page_fd,),
        grace_s=CONTROL_GRACE_S,
        on_start=context.control_page.started,
        stage=CONTROL_STAGE,
    )
    return ServePlan(
        config=config,
        config_path=context.config_path,
        url=url_of(context.listener),
        proxies=proxies,
        control_plane=control_plane,
        litellm=litellm,
        roster=roster,
    )
