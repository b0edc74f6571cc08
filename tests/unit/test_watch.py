"""The watcher hears every way in which a configuration changes, and little else. On the real file system."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from zerohop.config import watch
from zerohop.config.watch import ConfigWatcher


def heard(watcher: ConfigWatcher, seconds: float = 2.0) -> bool:
    """Whether it says, within the time, that something may have changed."""
    poll = select.poll()
    poll.register(watcher.fileno(), select.POLLIN)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if poll.poll(left * 1000) and watcher.drain():
            return True
    return False


def silent(watcher: ConfigWatcher) -> bool:
    return not heard(watcher, 0.15)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "conf"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("a")
    return folder


@pytest.fixture
def watcher(folder: Path) -> Iterator[ConfigWatcher]:
    with closing(ConfigWatcher(folder)) as watcher:
        yield watcher


def test_writing_making_removing_and_renaming_files(folder: Path, watcher: ConfigWatcher) -> None:
    assert silent(watcher)
    (folder / "a.yaml").write_text("b")
    assert heard(watcher)
    (folder / "b.yml").write_text("b")
    assert heard(watcher)
    assert silent(watcher)
    (folder / "b.yml").unlink()
    assert heard(watcher)
    (folder / "a.yaml").rename(folder / "a.off")
    assert heard(watcher)
    (folder / "a.off").rename(folder / "c.yaml")
    assert heard(watcher)
    (folder / "c.yaml").chmod(0o600)
    assert heard(watcher)
    os.link(folder / "c.yaml", folder / "d.yaml")
    assert heard(watcher)
    os.symlink("c.yaml", folder / "e.yaml")
    assert heard(watcher)


def test_what_is_no_configuration_is_not_heard(folder: Path, watcher: ConfigWatcher) -> None:
    (folder / "a.txt").write_text("x")
    (folder / ".a.yaml.swp").write_text("x")
    (folder / ".a.yaml").write_text("x")
    (folder.parent / "other.yaml").write_text("x")
    (folder.parent.parent / "conf").mkdir()
    (folder / "a.yaml").read_text()
    assert silent(watcher)


def test_a_file_is_heard_when_it_is_complete_not_while_it_is_written(folder: Path, watcher: ConfigWatcher) -> None:
    with (folder / "a.yaml").open("w") as first, (folder / "new.yaml").open("w") as second:
        for stream in (first, second):
            stream.write("half")
            stream.flush()
        assert silent(watcher)
    assert heard(watcher)


def test_an_editor_that_renames_over(folder: Path) -> None:
    path = folder / "a.yaml"
    with closing(ConfigWatcher(path)) as watcher:
        for round_ in range(3):  # the second time the file is another than the one at the start
            (folder / "a.yaml~").write_text(str(round_))
            assert silent(watcher)
            (folder / "a.yaml~").rename(path)
            assert heard(watcher)
        path.write_text("in place")
        assert heard(watcher)
        path.unlink()
        assert heard(watcher)
        path.write_text("again")
        assert heard(watcher)
        (folder / "b.yaml").write_text("neighbour")
        assert silent(watcher)


def config_map(folder: Path, version: str) -> None:
    """Swaps the data as the kubelet does."""
    (folder / f"..{version}").mkdir()
    (folder / f"..{version}" / "a.yaml").write_text(version)
    os.symlink(f"..{version}", folder / "..data_tmp")
    (folder / "..data_tmp").rename(folder / "..data")


@pytest.mark.parametrize("single", [False, True])
def test_a_config_map(tmp_path: Path, single: bool) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    config_map(folder, "1")
    os.symlink("..data/a.yaml", folder / "a.yaml")
    with closing(ConfigWatcher(folder / "a.yaml" if single else folder)) as watcher:
        for version in "234":
            (tmp_path / "volume" / "..noise").write_text(version)
            assert silent(watcher)
            config_map(folder, version)
            assert heard(watcher)
            (folder / f"..{version}" / "a.yaml").write_text("in place")
            assert heard(watcher)
            shutil.rmtree(folder / f"..{int(version) - 1}")
            assert silent(watcher)


def test_a_path_through_links(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "releases" / name / "conf").mkdir(parents=True)
        (tmp_path / "releases" / name / "conf" / "a.yaml").write_text(name)
    (tmp_path / "etc").mkdir()
    os.symlink(tmp_path / "releases" / "one", tmp_path / "current")
    os.symlink("../current/./conf", tmp_path / "etc" / "zerohop")
    with closing(ConfigWatcher(tmp_path / "etc" / "zerohop")) as watcher:
        (tmp_path / "releases" / "one" / "conf" / "a.yaml").write_text("x")
        assert heard(watcher)
        (tmp_path / "releases" / "two" / "conf" / "a.yaml").write_text("x")
        assert silent(watcher)
        os.symlink(tmp_path / "releases" / "two", tmp_path / "next")
        (tmp_path / "next").rename(tmp_path / "current")
        assert heard(watcher)
        (tmp_path / "releases" / "two" / "conf" / "a.yaml").write_text("y")
        assert heard(watcher)
        (tmp_path / "releases" / "one" / "conf" / "a.yaml").write_text("y")
        assert silent(watcher)


def test_a_folder_that_goes_and_comes_back(folder: Path, watcher: ConfigWatcher) -> None:
    for _ in range(3):
        shutil.rmtree(folder.parent)
        assert heard(watcher)
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text("back")
        assert heard(watcher)
        assert silent(watcher)
        (folder / "a.yaml").write_text("and changed")
        assert heard(watcher)


def test_a_folder_that_is_replaced(folder: Path, watcher: ConfigWatcher) -> None:
    def renew() -> None:
        (folder.parent / "new").mkdir()
        (folder.parent / "new" / "a.yaml").write_text("new")

    renew()
    assert silent(watcher)
    folder.rename(folder.parent / "old")
    (folder.parent / "new").rename(folder)
    assert heard(watcher)
    (folder / "a.yaml").write_text("changed")
    assert heard(watcher)
    (folder.parent / "old" / "a.yaml").write_text("changed")
    assert silent(watcher)
    folder.parent.rename(folder.parent.parent / "away")
    assert heard(watcher)
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("back")
    assert heard(watcher)


def test_a_folder_removed_while_a_process_stands_in_it(
    folder: Path, watcher: ConfigWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports the removal itself only when the last one has left it."""
    monkeypatch.chdir(folder)
    (folder / "a.yaml").unlink()
    assert heard(watcher)
    folder.rmdir()
    assert heard(watcher)
    folder.mkdir()
    (folder / "a.yaml").write_text("back")
    assert heard(watcher)
    (folder / "a.yaml").write_text("changed")
    assert heard(watcher)


def test_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    with closing(ConfigWatcher(tmp_path / "a" / "b" / "c.yaml")) as watcher:
        (tmp_path / "x").mkdir()
        assert silent(watcher)
        (tmp_path / "a").mkdir()
        assert heard(watcher)
        (tmp_path / "a" / "b").mkdir()
        assert heard(watcher)
        (tmp_path / "a" / "b" / "c.yaml").write_text("x")
        assert heard(watcher)


def test_a_path_made_faster_than_it_can_be_followed(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*"abcdef", "conf.yaml")
    with closing(ConfigWatcher(path)) as watcher:
        path.parent.mkdir(parents=True)
        assert heard(watcher)
        path.write_text("x")
        assert heard(watcher)


def test_a_folder_made_between_looking_and_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "b" / "conf.yaml"
    real = watch._plan

    def plan(name: str) -> object:
        result = real(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return result

    monkeypatch.setattr(watch, "_plan", plan)
    with closing(ConfigWatcher(path)) as watcher:
        path.write_text("x")
        assert heard(watcher)


def test_a_loop_of_links(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with closing(ConfigWatcher(tmp_path / "a")) as watcher:
        (tmp_path / "a").unlink()
        (tmp_path / "a").write_text("x")
        assert heard(watcher)


def test_a_relative_path_stays_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with closing(ConfigWatcher(Path("conf"))) as watcher:
        monkeypatch.chdir("/")
        (folder / "a.yaml").write_text("b")
        assert heard(watcher)
        shutil.rmtree(folder)
        assert heard(watcher)
        folder.mkdir()
        assert heard(watcher)


def test_more_events_than_the_kernel_keeps(folder: Path, watcher: ConfigWatcher) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 65536:
        pytest.skip("the queue is too long to fill in a test")
    for number in range(limit + 10):  # no two equal ones in a row: those would be merged
        os.close(os.open(folder / f"{number % 2}.txt", os.O_WRONLY | os.O_CREAT))
    (folder / "a.yaml").write_text("lost among them")
    assert watcher.drain()


def test_closing_leaves_nothing_and_may_be_repeated(folder: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    watcher = ConfigWatcher(folder)
    watcher.close()
    watcher.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not watcher.drain()


def test_watches_do_not_pile_up(folder: Path, watcher: ConfigWatcher) -> None:
    def watches() -> int:
        return Path(f"/proc/self/fdinfo/{watcher.fileno()}").read_text().count("inotify wd:")

    before = watches()
    for number in range(5):  # the old folders stay, so that the kernel does not take the watches away itself
        folder.rename(folder.parent / f"old-{number}")
        assert heard(watcher)
        folder.mkdir()
        (folder / "a.yaml").write_text("x")
        assert heard(watcher)
    assert watches() == before


@pytest.mark.parametrize("call", ["inotify_init1", "inotify_add_watch"])
def test_without_inotify_it_warns_once_and_stays_silent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    real = ctypes.CDLL(None, use_errno=True)

    class Limited:
        def __getattr__(self, name: str) -> object:
            return refuse if name == call else getattr(real, name)

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EMFILE if call == "inotify_init1" else errno.ENOSPC)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Limited())
    with caplog.at_level(logging.WARNING), closing(ConfigWatcher(folder)) as watcher:
        assert "only seen every few seconds" in caplog.text
        assert len(caplog.records) == 1
        (folder / "a.yaml").write_text("x")
        assert silent(watcher)
