"""Pages that processes share: a full disk hinders nobody."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from store.process.control_page import ControlPage
from store.process.workers import Roster
from tests.helpers.paths import ROOT

WITHOUT_A_DISK = """
import os, tempfile
from store.process.control_page import ControlPage
from store.process.workers import Roster
tempfile.TemporaryFile = None
roster, page = Roster.create(2), ControlPage.create()
roster.beat(1, 5)
page.beat()
assert roster.alive(1) and page.state.pid == os.getpid()
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="a temporary file needs a disk")
def test_the_pages_need_no_disk() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_A_DISK], check=True, cwd=ROOT)


@pytest.mark.parametrize("memory", [True, False])
def test_a_page_is_zeros_that_children_inherit(
    memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    roster, page = Roster.create(3), ControlPage.create()
    try:
        for fd in (roster.fd, page.fd):
            size = os.fstat(fd).st_size
            assert size > 0
            assert os.get_inheritable(fd)
            assert os.pread(fd, size, 0) == bytes(size)
    finally:
        roster.close()
        page.close()
