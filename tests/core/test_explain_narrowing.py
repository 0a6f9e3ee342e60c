"""The smallest part of a list that does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from qm.diagnosis.narrowing import narrowed


def searched(ranked: Iterable[int], needed: set[int]) -> tuple[tuple[int, ...], int]:
    """What the search finds where a part does if it holds all that is needed, and how often it asked."""
    search = narrowed(list(ranked))
    asked = 0
    try:
        candidate = next(search)
        while True:
            asked += 1
            candidate = search.send(needed <= set(candidate))
    except StopIteration as e:
        return e.value, asked


@pytest.mark.parametrize("needed", [{0}, {7}, {19}, {0, 1}, {3, 12}, {2, 9, 17}, set(range(20))])
def test_what_is_needed_is_found_and_nothing_else(needed: set[int]) -> None:
    assert set(searched(range(20), needed)[0]) == needed


def test_one_member_that_ranks_first_takes_one_trial() -> None:
    assert searched(range(50), {0}) == ((0,), 1)


def test_three_of_a_hundred_that_rank_high_take_few_trials() -> None:
    assert searched(range(100), {0, 2, 5})[1] <= 30


def test_a_list_of_one_is_its_own_answer() -> None:
    assert searched([4], {4}) == ((4,), 0)


def test_no_member_of_the_answer_can_be_spared_where_any_two_do() -> None:
    search = narrowed(list(range(10)))
    found = ()
    try:
        candidate = next(search)
        while True:
            candidate = search.send(len(candidate) >= 2)
    except StopIteration as e:
        found = e.value
    assert len(found) == 2
