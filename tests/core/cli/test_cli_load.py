"""Options before any method are the loader's, on every command that loads a model to look into it."""

from __future__ import annotations

import argparse

from qm.cli.request import add_request


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_request(parser)
    return parser.parse_args(words)


def test_an_option_before_any_method_is_the_loaders():
    told = parsed("nets:net", "-o", "weights=w.pt", "-p", "toy.round", "-o", "clip=0.5", "-p", "toy.x", "-ob=1")
    assert told.load == {"weights": "w.pt"}
    assert told.stages == [("toy.round", {"clip": "0.5"}), ("toy.x", {"b": "1"})]


def test_options_do_not_leak_from_one_command_into_the_next():
    assert parsed("net.toy", "-o", "a=1").load == {"a": "1"}
    assert parsed("net.toy").load == {}


def test_dashes_in_names_are_underscores():
    assert parsed("net.toy", "-o", "learning-rate=1").load == {"learning_rate": "1"}
