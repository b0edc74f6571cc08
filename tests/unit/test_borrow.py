"""Sockets of other processes are borrowed a few at a time, and none is passed over for want of descriptors."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from zerohop.errors import ZerohopError
from zerohop.kernel import borrow

Sockets = dict[int, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Connected sockets of this process by cookie, beside others that are not wanted."""
    made = [each for _ in range(10) for each in socket.socketpair()]
    datagrams = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
    yield {borrow.cookie_of(each): each for each in made}
    for each in (*made, *datagrams):
        each.close()


@pytest.fixture
def soft_limit() -> Iterator[Any]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def borrowed(sockets: Sockets) -> list[set[int]]:
    """The cookies of each batch; the duplicates are closed as the caller of `batches` does."""
    found = []
    for batch in borrow.batches([os.getpid(), os.getpid()], set(sockets)):
        found.append(set(batch))
        for cookie, duplicate in batch.items():
            assert borrow.cookie_of(duplicate) == cookie
            assert duplicate.fileno() != sockets[cookie].fileno()
            duplicate.close()
    return found


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_all_at_once(sockets: Sockets) -> None:
    before = open_files()
    assert borrowed(sockets) == [set(sockets)]
    assert open_files() == before


def test_a_few_at_a_time(sockets: Sockets, soft_limit: Any) -> None:
    before = open_files()
    soft_limit(before + 16 + 8)
    found = borrowed(sockets)
    assert sum(map(len, found)) == len(sockets)
    assert set().union(*found) == set(sockets)
    assert max(map(len, found)) <= 8
    assert open_files() == before


def test_next_to_none(sockets: Sockets, soft_limit: Any) -> None:
    soft_limit(open_files() + 10)
    with pytest.raises(ZerohopError, match="too few file descriptors"):
        borrowed(sockets)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_others_took_them(sockets: Sockets, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What cannot be had now is asked for again once the batch has been closed."""
    real = borrow._duplicate
    before = open_files()

    def scarce(*arguments: Any) -> Any:
        if open_files() >= before + 6:
            raise OSError(number, "")
        return real(*arguments)

    monkeypatch.setattr(borrow, "_duplicate", scarce)
    found = borrowed(sockets)
    assert [len(each) for each in found] == [6, 6, 6, 2]
    assert set().union(*found) == set(sockets)


def test_the_hard_limit_for_a_while(soft_limit: Any) -> None:
    soft_limit(200)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with borrow.hard_limit():
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, hard)
