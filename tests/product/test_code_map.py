"""What the documents say of the code is so: the tree of ARCHITECTURE.md."""

from __future__ import annotations

from docs.tree import document
from tests.helpers.documents import text_of


def test_the_tree_is_that_of_the_docstrings() -> None:
    text = text_of("ARCHITECTURE.md")

    assert text == document(text), "run `make tree`"
