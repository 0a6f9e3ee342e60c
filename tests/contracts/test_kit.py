"""The conformance kit finds out plugins that do not keep their word.

Each liar below is a card of an installed plugin that breaks one promise; the kit runs on all of them once, in a pytest
of its own, and every lie must make the test that is meant for it fail. One card is honest, and passes.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

LIARS = Path(__file__).with_name("liars")

CAUGHT = [
    ("TestHonest", None),
    ("TestNoScheme", "test_the_scheme_gets_into_the_file"),
    ("TestWrongScheme", "test_the_scheme_gets_into_the_file"),
    ("TestEveryLayer", "test_a_layer_left_out_of_the_plan_is_left_alone"),
    ("TestEveryLayer", "test_an_empty_plan_changes_nothing"),
    ("TestMeddler", "test_the_given_model_is_unchanged"),
    ("TestDice", "test_one_seed_gives_the_same_bytes"),
    ("TestLitter", "test_nothing_is_left_lying_about"),
    ("TestCaller", "test_the_network_is_not_used"),
    ("TestDeaf", "test_an_interrupt_gets_through_and_leaves_no_file"),
    ("TestScratch", "test_an_interrupt_gets_through_and_leaves_no_file"),
    ("TestGarbage", "test_the_outputs_agree_with_the_float_model"),
    ("TestInfinite", "test_the_outputs_are_finite"),
    ("TestLenient", "test_a_scheme_that_is_not_offered_is_an_error_of_ours"),
    ("TestGreedy", "test_data_are_needed_only_where_the_card_says_so"),
    ("TestMute", "test_every_option_has_a_description_and_a_default"),
    ("TestBloated", "test_the_file_is_smaller"),
    ("TestPickle", "test_loading_unpickles_nothing"),
    ("TestCrash", "test_a_broken_file_is_a_usage_error_with_a_hint"),
    ("TestBlind", "test_a_broken_file_is_a_usage_error_with_a_hint"),
    ("TestRenamer", "test_layers_are_the_same_in_two_loads"),
    ("TestNosy", "test_the_answer_is_a_recipe"),
    ("TestGuesser", "test_one_seed_gives_the_same_answer"),
    ("TestStray", "test_every_rule_matches_a_layer"),
    ("TestForgetful", "test_what_was_asked_besides_the_schemes_is_kept"),
    ("TestHalfWriter", "test_the_file_loads_and_answers_as_the_model_does"),
    ("TestElsewhere", "test_the_file_is_where_it_was_asked_for"),
    ("TestTimeless", "test_the_profile_takes_time_and_names_its_operations"),
    ("TestOtherAnswers", "test_a_run_gives_what_the_model_gives"),
    ("TestHeavy", "test_declaring_loads_no_framework"),
    ("TestUnknown", "test_the_card_is_found_by_its_full_name"),
]


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """The failed tests of each class."""
    report = tmp_path_factory.mktemp("kit") / "report.xml"
    tests = sorted({f"{LIARS / 'check_liars.py'}::{liar}" + (f"::{test}" if test else "") for liar, test in CAUGHT})
    told = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(LIARS), "--import-mode=importlib"]
    paths = [str(LIARS), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *told, f"--junitxml={report}", *tests],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    failed = {}
    for case in ET.parse(report).iter("testcase"):
        names = failed.setdefault(case.get("classname").rpartition(".")[2], set())
        if case.find("failure") is not None or case.find("error") is not None:
            names.add(case.get("name").partition("[")[0])
    return failed


@pytest.mark.parametrize(("liar", "test"), CAUGHT, ids=lambda value: value or "nothing")
def test_the_kit_finds_the_lie(failures, liar, test):
    if test is None:
        assert failures[liar] == set()
    else:
        assert test in failures[liar]
