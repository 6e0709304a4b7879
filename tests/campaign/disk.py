"""A small disk for an episode: a tmpfs in a mount namespace of the campaign's own, where it may.

Linux lets a user mount one within a user namespace (unshare --user), unless the machine forbids it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

SIZE_MB = 256
INSIDE = "UNDERSTUDY_CAMPAIGN_NAMESPACE"


def enter_namespace(arguments: Sequence[str]) -> None:
    """Starts the campaign again in a namespace where it may mount; returns where that is forbidden.

    The process is replaced, so it stays the one that a terminal talks to.
    """
    if os.environ.get(INSIDE) or not sys.platform.startswith("linux"):
        return
    for options in (["--mount"], ["--mount", "--user", "--map-root-user"]):
        program = which("unshare")
        if program is None or which("mount") is None:
            return
        probe = [program, *options, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            os.environ[INSIDE] = "1"
            os.execv(
                program,
                [program, *options, sys.executable, "-m", "tests.campaign", *arguments],
            )


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of SIZE_MB at the folder, as long as it lasts; False: it may not be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.environ.get(INSIDE):
        yield False
        return
    size = f"size={SIZE_MB}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
