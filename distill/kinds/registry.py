"""The registered student kinds, cheapest first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distill.kinds.kind import StudentKind
from distill.kinds.label import LabelKind
from distill.kinds.lora import LoraKind
from distill.students.students import StudentProcess, StudentSpec
from store.errors import RunError

KINDS: tuple[StudentKind, ...] = (LabelKind(), LoraKind())


def kind_named(name: str) -> StudentKind:
    """The kind of this name. Raises RunError when there is none."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise RunError(f"this version knows no students of the kind {name!r}")


def student_servers(log_dir: Path) -> Callable[[StudentSpec], StudentProcess]:
    """Makes the servers of students of any kind: see StudentKind.servers."""
    makers = {kind.name: kind.servers(log_dir) for kind in KINDS}
    return lambda spec: makers[spec.kind](spec)
