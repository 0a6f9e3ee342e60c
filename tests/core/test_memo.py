"""What is kept from trial to trial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qm.memo import Memo, nbytes


class Asked(list[list[str]]):
    """Remembers what was computed."""

    def lengths(self, keys):
        self.append(list(keys))
        return {key: len(key) for key in keys}


def test_a_value_is_computed_once():
    memo, asked = Memo(), Asked()
    for _ in range(3):
        assert memo.once("abc", lambda: asked.lengths(["abc"])["abc"]) == 3
    assert asked == [["abc"]]


def test_what_is_missing_is_asked_for_together_and_once():
    memo, asked = Memo(), Asked()
    memo.many(["a", "bb"], asked.lengths)
    assert memo.many(["dddd", "bb", "ccc", "dddd"], asked.lengths) == {"dddd": 4, "bb": 2, "ccc": 3}
    assert asked == [["a", "bb"], ["dddd", "ccc"]]


def test_values_come_in_the_order_of_the_keys_wherever_they_come_from():
    memo, asked = Memo(), Asked()
    memo.many(["b"], asked.lengths)
    assert list(memo.many(["c", "b", "a"], asked.lengths)) == ["c", "b", "a"]


def test_a_value_of_none_is_known_too():
    memo = Memo()
    memo.once("a", lambda: None)
    assert memo.once("a", lambda: pytest.fail("computed again")) is None


def test_owners_do_not_see_each_other():
    memo = Memo()
    assert [memo.part(name).once("a", lambda name=name: name) for name in ("x", "y", "x")] == ["x", "y", "x"]


def test_nothing_is_kept_of_what_failed():
    memo = Memo()
    with pytest.raises(ZeroDivisionError):
        memo.once("a", lambda: 1 // 0)
    assert memo.once("a", lambda: 1) == 1


def test_what_was_used_longest_ago_is_let_go():
    memo, asked = Memo(most_bytes=1600), Asked()

    def arrays(keys):
        asked.append(list(keys))
        return {key: np.zeros(100) for key in keys}

    for key in ("a", "b", "a", "c", "a", "b"):
        memo.many([key], arrays)
    assert asked == [["a"], ["b"], ["c"], ["b"]]


def test_a_value_beyond_the_limit_is_given_and_not_kept():
    memo = Memo(most_bytes=100)
    values = [memo.once("a", lambda: np.zeros(100)) for _ in range(2)]
    assert values[0] is not values[1]


def test_owners_share_the_room():
    memo = Memo(most_bytes=1000)
    memo.part("x").once("a", lambda: np.zeros(100))
    memo.part("y").once("a", lambda: np.zeros(100))
    assert repr(memo) == "<Memo of 1 values, 800 bytes>"


def test_a_job_alone_keeps_nothing():
    memo = Memo.forgetful()
    memo.once("a", lambda: np.zeros(1))
    assert repr(memo) == "<Memo of 0 values, 0 bytes>"
    assert not memo.remembers
    assert Memo().remembers
    assert Memo().part("x").remembers


def test_a_size_counts_what_a_value_holds():
    @dataclass
    class Both:
        one: object
        others: tuple[object, ...]

    array = np.zeros(10)
    assert nbytes({"a": [array, array], "b": Both(array, (array,))}) == 4 * array.nbytes
