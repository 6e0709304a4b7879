"""MkDocs hook: pages that are made from files of the repository, and links between all of them.

A document links to files as they lie in the repository (`../config.yaml`), so that its links also
work where the repository is read as it is. Here they become links to the pages of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

# page → the file of the repository that it shows
SHOWN = {
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "measurements.md": "bench/README.md",
    "settings.md": "config.yaml",
}
PAGE_OF = {source: page for page, source in SHOWN.items()} | {"README.md": "index.md"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that have no file in docs/."""
    for page, source in SHOWN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source == "config.yaml":
            text = settings_page(text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to pages."""
    path = page.file.src_uri
    return linked(markdown, SHOWN.get(path, f"docs/{path}"))


def linked(markdown: str, source: str) -> str:
    """The text of a file of the repository, with links that hold on the site."""

    def page(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        name = PAGE_OF.get(target, target.removeprefix("docs/"))
        return f"]({name}{match[2] or ''})"

    return LINK.sub(page, markdown)


def settings_page(config: str) -> str:
    """config.yaml as a page: a heading and a block of code for each of its sections."""
    head, *sections = re.split(r"^# ---- (.*?) -+\n", config, flags=re.M)
    intro = "\n".join(line.removeprefix("#").removeprefix(" ") for line in head.splitlines())
    page = ["# Settings", intro.partition("\n")[2].strip("\n")]
    for title, block in zip(sections[::2], sections[1::2], strict=True):
        page += [f"## {title}", f"```yaml\n{block.strip()}\n```"]
    return "\n\n".join(page) + "\n"
