"""The arithmetic of turns: what an operation took of the time in which its programs ran."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerohop.bench.turns import Turn, Turns

TURNS = Turns([Turn(10.0, 11.0, 0.5), Turn(15.0, 17.0, 1.5)])


def test_sums() -> None:
    assert TURNS.seconds == 3.0
    assert TURNS.busy == 2.0


@pytest.mark.parametrize(
    ("instant", "inside", "elapsed"),
    [
        (9.0, False, 0),
        (10.0, True, 0),
        (10.5, True, 0.5),
        (11.0, False, 1),
        (14.0, False, 1),
        (16.0, True, 2),
        (99.0, False, 3),
    ],
)
def test_elapsed_is_the_time_of_turns_only(instant: float, inside: bool, elapsed: float) -> None:
    assert TURNS.includes(instant) == inside
    assert TURNS.elapsed(instant) == elapsed


def test_latencies_are_without_the_time_in_which_programs_were_halted() -> None:
    operations = [
        (10.25, 10.5),  # within a turn
        (10.75, 15.5),  # across the halt
        (9.5, 10.5),  # begun before measuring
        (16.5, 17.5),  # ended after it
        (10.5, 12.0),  # ended while halted
    ]
    assert TURNS.latencies(operations) == [0.25, 0.75]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=20),
    st.integers(0, 2000),
    st.integers(0, 2000),
)
def test_elapsed_agrees_with_counting(lengths: list[tuple[int, int]], first: int, second: int) -> None:
    turns, running, now = [], set(), 0
    for length, pause in lengths:
        turns.append(Turn(now, now + length, 0.0))
        running |= set(range(now, now + length))
        now += length + pause
    begin, end = sorted((first, second))
    sut = Turns(turns)
    assert sut.elapsed(end) - sut.elapsed(begin) == len(running & set(range(begin, end)))
    assert sut.includes(begin) == (begin in running)
