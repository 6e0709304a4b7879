"""This distribution's name on PyPI (`understudy` there is another project) and its version."""

from __future__ import annotations

from importlib.metadata import version

DISTRIBUTION = "understudy-proxy"


def installed_version() -> str:
    """The version that is installed, such as `0.1.0`."""
    return version(DISTRIBUTION)


def install_hint(extra: str) -> str:
    """The command that installs an extra of this distribution."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
