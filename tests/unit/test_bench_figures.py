"""The bench's arithmetic: percentiles, ratios within a round, spread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerohop.bench.figures import interquartile_range, medians, percentile, round_ratios


def test_percentile_is_nearest_rank() -> None:
    samples = list(range(1, 101))
    assert percentile(samples, 50) == 50
    assert percentile(samples, 99) == 99
    assert percentile(samples, 100) == 100
    assert percentile([7], 50) == 7
    assert percentile([1, 2, 3], 50) == 2


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@given(st.lists(st.integers(), min_size=1), st.integers(1, 100))
def test_percentile_covers_at_least_its_share(samples: list[int], percent: int) -> None:
    samples.sort()
    value = percentile(samples, percent)
    assert value in samples
    assert sum(sample <= value for sample in samples) * 100 >= percent * len(samples)


def test_spread_is_the_interquartile_range() -> None:
    assert interquartile_range([1, 2, 3, 4, 5]) == 2
    assert interquartile_range([3]) == 0
    assert interquartile_range([1, 1, 1, 1, 100]) == 0


def test_ratios_compare_neighbours_in_time() -> None:
    # The machine is twice as slow in the second round: the ratio does not notice.
    mode = [{"per_second": 110.0}, {"per_second": 55.0}]
    direct = [{"per_second": 100.0}, {"per_second": 50.0}]
    assert round_ratios(mode, direct)["per_second"] == pytest.approx([1.1, 1.1])


def test_a_figure_that_is_missing_or_not_comparable_is_left_out() -> None:
    assert round_ratios([{"p50_us": 2.0}], [{"per_second": 1.0}]) == {}
    assert round_ratios([{"cpu_us_per_op": 1.0}], [{"cpu_us_per_op": 0.0}]) == {}
    assert medians([{"per_second": 1.0}, {"per_second": 3.0}, {"per_second": 2.0}]) == {"per_second": 2.0}


def test_ratios_refuse_a_missing_round() -> None:
    with pytest.raises(ValueError, match="shorter"):
        round_ratios([{"p50_us": 1.0}, {"p50_us": 1.0}], [{"p50_us": 1.0}])
