"""What the documents say of the code is so: tree, walks, glossary, and what a change touches."""

from __future__ import annotations

import ast
import re

import pytest

from docs.tree import document
from tests.helpers.documents import section, table, text_of
from tests.helpers.paths import ROOT

ARCHITECTURE, GLOSSARY, CONTRIBUTING = "ARCHITECTURE.md", "docs/glossary.md", "docs/contributing.md"
CHANGES = re.findall(r"^## (Add a setting|Add an? [\w ]+)$", text_of(CONTRIBUTING), re.M)
WALKS = re.findall(r"^### (.*)$", section(ARCHITECTURE, "Walks"), re.M)


@pytest.mark.slow
def test_the_tree_is_that_of_the_docstrings() -> None:
    text = text_of(ARCHITECTURE)

    assert text == document(text), "run `make tree`"


@pytest.mark.parametrize("top", ["store", "proxy", "distill", "cli", "demo"])
def test_the_order_of_packages_names_every_package(top: str) -> None:
    text = section(ARCHITECTURE, "The packages and their order")
    order = re.findall(rf"^{top}/ .*(?:\n +.*)*", text, re.M)[0]
    packages = {path.parent.name for path in (ROOT / top).glob("*/__init__.py")}

    assert packages <= set(re.findall(r"\w+", order))


# ---- walks -------------------------------------------------------------------------------------


def definitions(path: str) -> set[str]:
    """The functions, classes and methods that a file defines: `f`, `C`, `C.m`."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{method}" for method in _functions(node)}
        names |= _functions(node)
    return names


def _functions(node: ast.AST) -> set[str]:
    inner = ast.iter_child_nodes(node)
    return {one.name for one in inner if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


FILE, FUNCTION = re.compile(r"`([\w./]+\.py)`"), re.compile(r"`([\w.]+)\(\)`")


def steps(walk: str) -> list[str]:
    """The numbered steps of a walk."""
    return re.split(r"^\d+\. ", section(ARCHITECTURE, walk), flags=re.M)[1:]


def test_the_walks_that_a_newcomer_takes_are_there() -> None:
    assert len(WALKS) == 5


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.slow
def test_the_functions_of_a_walk_exist_where_it_says(walk: str) -> None:
    head = re.split(r"^1\. ", section(ARCHITECTURE, walk), maxsplit=1, flags=re.M)[0]
    in_head = [line for line in re.split(r"(?=`[\w/]+\.py`)", head) if FILE.match(line)]
    for step in (*in_head, *steps(walk)):
        path, text = FILE.findall(step)[0], " ".join(step.split())
        assert set(FUNCTION.findall(text)) <= definitions(path), path


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_never_steps_back(walk: str) -> None:
    files = [FILE.findall(step)[0] for step in steps(walk)]

    assert len(files) == len(set(files)), files


# ---- words and recipes -------------------------------------------------------------------------


def test_each_word_of_the_glossary_lives_where_it_says() -> None:
    rows = table(GLOSSARY, "Glossary")
    assert len(rows) > 30
    for word, *_, where in rows:
        path, *names = re.findall(r"`([^`]+)`", where)
        text = (ROOT / path).read_text(encoding="utf-8")
        assert names, word
        for name in names:
            assert re.search(rf"\b{re.escape(name)}\b", text), f"{word}: {path} has no {name}"


@pytest.mark.parametrize("heading", CHANGES)
def test_the_files_that_a_change_touches_exist(heading: str) -> None:
    for cell, what in table(CONTRIBUTING, heading) if "|" in section(CONTRIBUTING, heading) else ():
        path = ROOT / cell.strip("`")
        assert path.is_file(), path
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"`([A-Za-z_]+)`", what):
            assert name in text, f"{path.name} has no {name}"


def test_recipes_for_the_usual_changes_are_there() -> None:
    assert {"Add a setting", "Add an import format", "Add a scorer", "Add a surface"} <= {*CHANGES}
