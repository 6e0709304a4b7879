"""The manual as a site: it builds without a warning, and needs nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs.pages import SHOWN, linked, settings_page
from tests.helpers.documents import MANUAL, text_of
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr  # a broken link is a warning, a warning an error
    return folder


@pytest.mark.slow
def test_every_document_is_a_page(site: Path) -> None:
    pages = {Path(name).name for name in MANUAL} | set(SHOWN)
    assert {page.name for page in site.glob("*.html")} >= {
        page.replace(".md", ".html") for page in pages
    }


@pytest.mark.slow
def test_blocks_of_code_are_blocks(site: Path) -> None:
    """Python-Markdown knows no block of code within a list."""
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "```" not in text, page
        assert not re.search(r"<code>(?:text|sh|yaml|python|js)\n", text), page


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe)\b[^>]*?\bsrc=\"([^\"]*)\"|<link\b[^>]*?\bhref=\"([^\"]*)\"",
            page.read_text(encoding="utf-8"),
        )
        assert loaded
        assert not [url for pair in loaded for url in pair if re.match(r"(https?:)?//", url)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_page_of_settings_has_every_line_of_the_config() -> None:
    config = text_of("config.yaml")
    shown = "\n".join(re.findall(r"```yaml\n(.*?)```", settings_page(config), re.S))

    assert yaml.safe_load(shown) == yaml.safe_load(config)


def test_links_to_files_of_the_repository_become_links_to_pages() -> None:
    text = "[a](../config.yaml) [b](guide.md#tag) [c](https://a.b/c) [d](#e) [f](../README.md)"

    assert linked(text, "docs/index.md") == (
        "[a](settings.md) [b](guide.md#tag) [c](https://a.b/c) [d](#e) [f](index.md)"
    )
    assert linked("[a](docs/guide.md)", "ARCHITECTURE.md") == "[a](guide.md)"
