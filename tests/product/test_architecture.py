"""The shape of the code: who may import whom, and what its files and names are like."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("cli", "demo", "distill", "proxy", "store")
MAX_LINES = 600  # of a file; about 300 is the habit

NOT_IN_THE_DATA_PLANE = {
    "distill",
    "cli",
    "demo",
    "duckdb",
    "mlx",
    "mlx_lm",
    "litellm",
    "fastapi",
    "starlette",
    "openai",
    "instructor",
    "httpx",
    "scipy",
    "numpy",
    "apscheduler",
    "jsonschema",  # only where a student's answer needs it
    "rich",
    "typer",
}
FORBIDDEN = {
    "proxy": NOT_IN_THE_DATA_PLANE - {"jsonschema"},
    "distill": {"proxy", "cli", "demo"},
    "store": {"proxy", "distill", "cli", "demo", "mlx", "mlx_lm", "litellm", "fastapi"},
}

# The order of the packages in each top-level one: a package imports itself and those of earlier
# lines. "" stands for the files of the top-level package itself: all packages of `store` build on
# them; elsewhere they tie the packages together.
ORDER = {
    "store": ("", "privacy", "settings", "chat", "process", "files", "database"),
    "proxy": ("http", "upstream", "access", "routing", "surfaces", "observe", ""),
    "distill": (
        "dataset gate",
        "teacher",
        "run",
        "amplify train label",
        "evaluate students",
        "kinds",
        "monitor",
        "pipeline",
        "forget status",
        "",
    ),
    "cli": ("serve", "imports", "status", "commands", ""),
    "demo": ("base tasks", "teacher", "drive", "backtest", "journey", ""),
}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def all_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from files(package)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules_imported(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # a module, or a package of which modules are imported
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else node.module


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imported(path: Path) -> Iterator[str]:
    """Top-level names of everything that a file imports."""
    yield from (name.split(".")[0] for name in modules_imported(path))


def inner_package(module: str) -> str:
    """The package within the top-level one: "surfaces" of proxy.surfaces.chat.read, or ""."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and ROOT.joinpath(*parts[:2]).is_dir() else ""


@pytest.mark.parametrize("package", FORBIDDEN)
@pytest.mark.slow
def test_a_plane_does_not_import_what_is_not_its_own(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in imported(path)
        if name in FORBIDDEN[package]
    }
    assert files(package)
    assert found == set()


@pytest.mark.parametrize("top", ORDER)
@pytest.mark.slow
def test_packages_import_only_those_before_them(top: str) -> None:
    place = {
        package: number
        for number, packages in enumerate(ORDER[top])
        for package in packages.split() or [""]
    }
    there = {path.parent.name for path in (ROOT / top).glob("*/__init__.py")}
    assert there == set(place) - {""}
    wrong = set()
    for path in files(top):
        own = inner_package(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in modules_imported(path):
            other = inner_package(module)
            if module.split(".")[0] != top or module == top or other == own:
                continue
            if place[other] >= place[own]:
                wrong.add(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == set()


def test_the_proxy_does_not_read_the_database() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in files("proxy")
        for module in modules_imported(path)
        if module.startswith("store.database")
    }
    assert found == set()


def test_only_one_file_of_the_proxy_imports_aiohttp() -> None:
    users = [path.name for path in files("proxy") if "aiohttp" in imported(path)]
    assert users == ["through_proxy.py"]


@pytest.mark.slow
def test_a_worker_loads_nothing_slow() -> None:
    """Also what comes along with an import: the data plane starts fast and stays small."""
    code = "import json, sys, proxy.worker; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "proxy" in loaded
    assert loaded & {*NOT_IN_THE_DATA_PLANE, "aiohttp"} == set()


def test_a_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*all_files(), *files("tests"), *files("bench")]
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_a_public_class_name_has_one_meaning() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path in all_files():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(str(path.relative_to(ROOT)))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_a_bound_is_called_min_or_max() -> None:
    odd = re.compile(
        r"^_?(MOST|FEWEST|LEAST|LONGEST|SHORTEST|LARGEST|SMALLEST|HIGHEST|LOWEST|DEEPEST)(_|$)"
    )
    found = {
        f"{path.relative_to(ROOT)}: {target.id}"
        for path in all_files()
        for node in tree(path).body
        for target in _targets(node)
        if odd.match(target.id)
    }
    assert found == set()


def _targets(node: ast.stmt) -> Iterator[ast.Name]:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target
    elif isinstance(node, ast.Assign):
        yield from (t for t in node.targets if isinstance(t, ast.Name))


def test_a_package_says_what_lives_there_and_what_it_imports() -> None:
    silent = []
    for path in all_files():
        if path.name == "__init__.py":
            text = ast.get_docstring(tree(path)) or ""
            if len([line for line in text.splitlines() if line.strip()]) < 2:
                silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_untyped_json_objects_are_few() -> None:
    """Objects of any shape belong where the wire is; elsewhere there are records."""
    found = [
        str(path.relative_to(ROOT))
        for path in all_files()
        for _ in re.findall(
            r"(?:dict|Mapping|MutableMapping)\[str, Any\]", path.read_text(encoding="utf-8")
        )
    ]
    assert len(found) <= 60, found


@pytest.mark.slow
def test_rows_of_one_split_come_from_one_place() -> None:
    """That no held-out row is learned from is the first promise: it is kept in two files alone."""
    found = set()
    for path in [*all_files(), *files("bench")]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare) and any(
                isinstance(side, ast.Attribute) and side.attr == "split"
                for side in (node.left, *node.comparators)
            ):
                found.add(str(path.relative_to(ROOT)))
    assert found == {"distill/dataset/rows.py", "distill/evaluate/evaluations.py"}
