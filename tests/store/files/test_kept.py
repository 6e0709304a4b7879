"""Copies of collected segments: what is kept, for how long, and what they never do."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.files import kept as module
from store.files.kept import DAY_S, KeptFile, KeptSegments, to_delete

PLENTY = (1 << 40, 1 << 39)


def copies(folder: Path, **changes: object) -> KeptSegments:
    given = {"days": 3, "megabytes": 100, "disk": lambda _: PLENTY, **changes}
    return KeptSegments(folder / "journal", **given)  # type: ignore[arg-type]


def content(kept: KeptSegments) -> list[bytes]:
    return [file.path.read_bytes() for file in kept.files()]


def test_an_hour_is_one_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    kept = copies(tmp_path)
    kept.keep([b"1\n2\n", b"3", b"", b"\n"])
    kept.keep([b"4\n"])
    assert content(kept) == [b"1\n2\n3\n4\n"]
    [file] = kept.files()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700


def test_a_full_file_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    kept = copies(tmp_path)
    for number in range(12):
        kept.keep([b"%06d" % number])
    assert content(kept) == [b"%06d\n" % number for number in range(12)]  # 10 after 9, not after 1
    assert kept.last_line() == b"000011"


def files(*sizes_and_ages: tuple[int, float]) -> list[KeptFile]:
    return [
        KeptFile(Path(str(n)), size, 1000 - age) for n, (size, age) in enumerate(sizes_and_ages)
    ]


@pytest.mark.parametrize(
    ("bounds", "deleted"),
    [
        ({}, []),
        ({"max_age_s": 25}, [0]),
        ({"max_bytes": 5}, [0]),
        ({"max_bytes": 4}, [0, 1]),
        ({"max_bytes": 0}, [0, 1, 2]),
        ({"missing": 1}, [0]),
        ({"missing": 5}, [0, 1]),
        ({"missing": 99}, [0, 1, 2]),
    ],
)
def test_the_oldest_copies_go_first(bounds: dict[str, float], deleted: list[int]) -> None:
    given = {"now": 1000.0, "max_age_s": 100.0, "max_bytes": 100.0, "missing": 0.0, **bounds}
    found = to_delete(files((4, 30), (3, 20), (2, 10)), **given)  # type: ignore[arg-type]
    assert [int(file.path.name) for file in found] == deleted


def test_copies_leave_room_on_the_disk_for_what_is_no_copy(tmp_path: Path) -> None:
    free = [1 << 40]
    kept = copies(tmp_path, disk=lambda _: (1 << 40, free[0]))
    kept.keep([b"1"])
    free[0] = 100 << 20  # others have filled the disk
    kept.keep([b"2"])
    assert content(kept) == []


@pytest.mark.parametrize("nothing", [{"days": 0}, {"megabytes": 0}])
def test_nothing_is_kept_and_what_was_is_deleted(tmp_path: Path, nothing: dict[str, int]) -> None:
    copies(tmp_path).keep([b"1"])
    kept = copies(tmp_path, **nothing)
    kept.keep([b"2"])
    assert content(kept) == []


def test_a_clock_that_is_set_back_neither_loses_nor_overwrites_copies(tmp_path: Path) -> None:
    now = time.time()
    kept = copies(tmp_path, clock=lambda: now)
    kept.keep([b"1"])
    now -= 7200
    kept.keep([b"2"])
    assert sorted(content(kept)) == [b"1\n", b"2\n"]


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    kept = copies(tmp_path)
    kept.keep([b"1"])
    [file] = kept.files()
    with file.path.open("ab") as opened:
        opened.write(b"to")
    assert kept.last_line() == b"1"
    kept.keep([b"2"])
    assert content(kept) == [b"1\nto\n2\n"]


def in_the_way(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def lay(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return lay


ODD: dict[str, Callable[[Path], None]] = {
    "directory": in_the_way(Path.mkdir),
    "dangling_link": in_the_way(lambda path: path.symlink_to("/nowhere/at/all")),
    "pipe": in_the_way(os.mkfifo),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_something_odd_under_the_name_of_a_file_is_left_alone(
    tmp_path: Path, odd: Callable[[Path], None]
) -> None:
    kept = copies(tmp_path, clock=lambda: 0.0, days=10**6)
    odd(kept.folder / "1970010100-0.jsonl")
    kept.keep([b"1"])
    assert content(kept) == [b"1\n"]
    assert kept.last_line() == b"1"


def test_a_link_under_the_name_of_the_folder_makes_room(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = copies(tmp_path)
    kept.folder.parent.mkdir()
    kept.folder.symlink_to(elsewhere)
    kept.keep([b"1"])
    assert content(kept) == [b"1\n"]
    assert list(elsewhere.iterdir()) == []


def test_copies_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    kept = copies(tmp_path)
    kept.keep([b"1"])
    kept.folder.rename(tmp_path / "moved")
    kept.folder.parent.rmdir()
    kept.folder.parent.write_text("in the way")
    with pytest.raises(OSError, match="directory"):
        kept.keep([b"2"])


def test_old_copies_go_by_the_time_of_their_last_line(tmp_path: Path) -> None:
    now = time.time()
    kept = copies(tmp_path, clock=lambda: now)
    kept.keep([b"1"])
    [file] = kept.files()
    os.utime(file.path, (now - 3 * DAY_S - 60,) * 2)
    kept.prune()
    assert kept.files() == []
