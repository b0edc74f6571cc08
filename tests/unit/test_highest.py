"""Totals that were read once are not forgotten, but by another data path."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zerohop.kernel import highest


@pytest.fixture
def data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A data path named "one", as far as `highest` looks at it: the id of its map is 4."""
    (tmp_path / "one").mkdir()
    monkeypatch.setattr(highest, "RUN", tmp_path)
    monkeypatch.setattr(highest.libbpf, "map_info", lambda fd: SimpleNamespace(id=fd))
    return SimpleNamespace(folder=Path("/pins/one"), maps={"counters": SimpleNamespace(fd=4)})


def test_the_highest_of_each(data_path: Any) -> None:
    assert highest.highest(data_path, {"a": 5, "b": 7}) == {"a": 5, "b": 7}
    assert highest.highest(data_path, {"a": 6, "b": 6}) == {"a": 6, "b": 7}
    assert highest.highest(data_path, {"a": 0, "b": 8}) == {"a": 6, "b": 8}


def test_another_data_path_begins_anew(data_path: Any) -> None:
    highest.highest(data_path, {"a": 5})
    data_path.maps["counters"].fd = 9
    assert highest.highest(data_path, {"a": 2}) == {"a": 2}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"data_path": 4}'])
def test_what_is_damaged_is_not_believed(data_path: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "one" / "totals.json").write_text(content)
    assert highest.highest(data_path, {"a": 2}) == {"a": 2}
    assert highest.highest(data_path, {"a": 1}) == {"a": 2}


def test_forgotten(data_path: Any, tmp_path: Path) -> None:
    highest.highest(data_path, {"a": 5})
    highest.forget("one")
    highest.forget("one")
    assert list((tmp_path / "one").iterdir()) == []
    assert highest.highest(data_path, {"a": 2}) == {"a": 2}


def test_no_folder_no_memory(data_path: Any, tmp_path: Path) -> None:
    (tmp_path / "one").rmdir()
    assert highest.highest(data_path, {"a": 5}) == {"a": 5}
    assert highest.highest(data_path, {"a": 2}) == {"a": 2}
    assert list(tmp_path.iterdir()) == []
