"""Who beats whom, who goes on, and what may be varied."""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal

import pytest

from qm.choice import choices
from qm.errors import UsageError
from qm.plugin import Field, Options
from qm.recipe import Recipe, Stage
from qm.tuning.goal import Goal
from qm.tuning.job import Measured
from qm.tuning.space import Candidate, Cost
from qm.tuning.standing import Standing
from qm.verdict import Answer


def candidate(name: str) -> Candidate:
    recipe = Recipe(stages=(Stage(plugin="toy.round"),), scheme="w8")
    return Candidate(name=name, base=name, recipe=recipe, cost=Cost.NOTHING)


def measured(nbytes: int, sqnr_db: float, lost: int | None = 0, gained: int | None = 0, samples: int = 100) -> Measured:
    return Measured(
        nbytes=nbytes, sqnr_db=sqnr_db, samples=samples, lost=lost, gained=gained, labelled=True, seconds=0, runtime=""
    )


def standing(*results: tuple[str, int, Measured], goal: Goal = Goal()) -> Standing:  # noqa: B008 - it is frozen
    names = list(dict.fromkeys(name for name, _, _ in results))
    made = Standing([candidate(name) for name in names], 3, goal, 1000)
    for name, rung, found in results:
        made.add(made.candidates[names.index(name)], rung, found)
    return made


def front(made: Standing) -> list[str]:
    return [r.candidate.name for r in made.front()]


def test_smaller_and_better_beats_and_a_trade_does_not():
    assert front(standing(("a", 0, measured(100, 30)), ("b", 0, measured(90, 31)))) == ["b"]
    assert front(standing(("a", 0, measured(100, 30)), ("b", 0, measured(90, 29)))) == ["a", "b"]


def test_more_right_answers_keep_a_model_whose_outputs_are_further_off():
    assert front(standing(("a", 0, measured(90, 30, lost=9)), ("b", 0, measured(90, 20, lost=1)))) == ["a", "b"]


def test_luck_is_no_merit():
    assert front(standing(("a", 0, measured(90, 30)), ("b", 0, measured(90, 20, gained=9)))) == ["a"]


def test_of_two_alike_the_first_stays():
    assert front(standing(("a", 0, measured(90, 30)), ("b", 0, measured(90, 30)))) == ["a"]


def test_what_was_measured_less_does_not_beat_what_was_measured_more():
    made = standing(("a", 2, measured(90, 30)), ("b", 0, measured(80, 40)))
    assert front(made) == ["a", "b"]
    made.add(made.candidates[1], 2, measured(80, 25))
    assert front(made) == ["a", "b"]
    made.add(made.candidates[1], 2, measured(80, 35))
    assert front(made) == ["b"]


def test_what_is_no_smaller_than_the_float_model_is_not_on_the_front():
    assert front(standing(("a", 0, measured(1000, math.inf)))) == []


def test_the_best_third_goes_on_whole_fronts_first():
    made = standing(*((f"{i}", 0, measured(100 + i, 30 - i)) for i in range(6)), ("x", 0, measured(99, 10)))
    assert [c.name for c in made.promotable(0)] == ["0", "x"]


def test_the_chain_of_verdicts_begins_with_the_most_promising_and_only_gets_smaller():
    made = standing(
        ("a", 0, measured(300, 60)),
        ("b", 0, measured(200, 40)),
        ("c", 0, measured(250, 35)),
        ("d", 0, measured(90, 50, lost=5)),
    )
    assert [r.candidate.name for r in made.chain()] == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("lost", "gained", "answer"),
    [(0, 0, Answer.NOT_WORSE), (6, 1, Answer.CANNOT_TELL), (60, 2, Answer.WORSE)],
)
def test_a_drop_is_judged_with_its_interval(lost, gained, answer):
    found = Goal(max_drop=0.01).judge(measured(1, 30, lost, gained, samples=500))
    assert found.answer is answer
    assert (found.missed_by is None) == (answer is Answer.NOT_WORSE)


def test_a_goal_in_answers_needs_classes():
    with pytest.raises(UsageError, match="no scores of classes"):
        Goal().check(measured(1, 30, None, None))
    Goal(min_sqnr_db=20).check(measured(1, 30, None, None))


def test_what_was_measured_comes_back_from_the_journal_as_it_was():
    for found in (measured(1, math.inf), measured(2, -math.inf, None, None), measured(3, 12.25, 4, 5)):
        assert Measured.read(found.entry()) == found


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Many(Options):
    ranges: Literal["minmax", "mse"] = Field(default="mse")
    safe: bool = Field(default=True)
    mood: Mood = Field(default=Mood.BAD)
    epochs: int = 10
    name: str = ""
    strength: float = Field(default=0.0, examples=[0.5, 1.0])
    needed: float = Field(examples=[0.5])


def test_choices_are_literals_booleans_and_enums_with_the_default_first():
    some = {name: values for name, values in choices(Many).items() if name != "strength"}
    assert some == {"ranges": ("mse", "minmax"), "safe": (True, False), "mood": ("bad", "good")}


def test_a_number_with_examples_is_a_choice_among_them_and_its_default_and_others_are_none():
    assert choices(Many)["strength"] == (0.0, 0.5, 1.0)
