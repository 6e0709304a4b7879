"""The shape of the code: the allowed imports, and the length of files."""

import ast
import json
import subprocess
import sys

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


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """Top-level names of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_planes_do_not_import_each_other(package):
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in imported(path)
        if name in FORBIDDEN[package]
    }
    assert files(package)
    assert found == set()


def test_only_one_file_of_the_proxy_knows_its_http_client():
    users = [path.name for path in files("proxy") if "aiohttp" in imported(path)]
    assert users == ["through_proxy.py"]


def test_a_worker_loads_nothing_slow():
    """Also what comes along with an import: the data plane starts fast and stays small."""
    code = "import json, sys, proxy.worker; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "proxy" in loaded
    assert loaded & {*NOT_IN_THE_DATA_PLANE, "aiohttp"} == set()


# Each package imports those of earlier lines alone; the files beside the packages come last.
ORDERS = {
    "distill": (
        {"dataset", "gate"},
        {"teacher"},
        {"run"},
        {"amplify", "train"},
        {"evaluate", "students"},
        {"monitor"},
        {"pipeline"},
        {"forget", "status"},
    ),
    "proxy": ({"http"}, {"upstream"}, {"access"}, {"routing"}, {"surfaces"}, {"observe"}),
}


def place_of(module, top):
    """The place of a module of `top` in its order, with its package; None for other modules."""
    root, _, rest = module.partition(".")
    package = rest.partition(".")[0]
    if root != top or not package:
        return None
    order = ORDERS[top]
    places = (place for place, packages in enumerate(order) if package in packages)
    return next(places, len(order)), package


def imported_modules(path):
    """The dotted names of everything that a file imports, names taken from a package included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("top", ORDERS)
def test_packages_import_only_those_before_them(top):
    folders = {path.name for path in (ROOT / top).iterdir() if (path / "__init__.py").exists()}
    assert folders == set().union(*ORDERS[top])
    wrong = set()
    for path in files(top):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        place, package = place_of(module, top)
        for name in imported_modules(path):
            other = place_of(name, top)
            if other is None or place == len(ORDERS[top]) or other[1] == package:
                continue
            if other[0] >= place:
                wrong.add(f"{module} imports {name}")
    assert wrong == set()


def compared_attributes(path):
    """The names of all attributes that stand on either side of a comparison."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            yield from (side.attr for side in sides if isinstance(side, ast.Attribute))


def test_rows_of_one_split_come_from_one_place():
    """That no held-out row is learned from is the first promise: it is kept in two files alone."""
    filtering = {
        str(path.relative_to(ROOT))
        for package in (*PACKAGES, "bench")
        for path in files(package)
        if "split" in compared_attributes(path)
    }
    assert filtering == {"distill/dataset/rows.py", "distill/evaluate/evaluations.py"}


def test_no_file_outgrows_its_subject():
    long = {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in files(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}
