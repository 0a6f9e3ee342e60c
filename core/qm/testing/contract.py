"""What holds for every card, whatever its kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qm.errors import UsageError
from qm.plugin import Batch, Card
from qm.testing.lab import Lab

FRAMEWORKS = (
    "ai_edge_litert",
    "jax",
    "keras",
    "onnx",
    "onnxruntime",
    "openvino",
    "paddle",
    "tensorflow",
    "tflite_runtime",
    "torch",
)

_LOADED = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
list(getattr(module, "qm_cards", list)())
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


def loaded_by(module: str, names: Sequence[str] = FRAMEWORKS) -> list[str]:
    """Which of the packages a new process has loaded once it has imported ``module`` and listed its cards."""
    command = [sys.executable, "-c", _LOADED, module, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} cannot be imported in a process of its own:\n{done.stderr}"
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.usefixtures("isolated")
class Contract:
    """What holds for every card. Set ``method`` to its full name, and give a model.

    ``options`` are passed to the method. ``untouched_db`` is the SQNR from which two answers count as the same: float
    rounding in another order makes about 120 dB.
    """

    method: ClassVar[str] = ""
    kind: ClassVar[type[Card]] = Card
    options: ClassVar[Mapping[str, Any]] = {}
    untouched_db: ClassVar[float] = 100.0

    def model(self, folder: Path) -> Path:
        """Write a small float model into ``folder``, or name one, and return its path."""
        raise NotImplementedError(f"{type(self).__name__} gives no model: define model(self, folder)")

    def samples(self) -> Sequence[Batch] | None:
        """Samples to run the model on, by input name; drawn at random where None."""
        return None

    def test_the_card_is_found_by_its_full_name(self, lab: Lab) -> None:
        assert lab.found.plugin == self.method
        assert isinstance(lab.card, self.kind)

    def test_the_card_has_a_summary_of_one_line(self, lab: Lab) -> None:
        assert lab.card.summary.strip(), f"{self.method} has no summary"
        assert "\n" not in lab.card.summary

    def test_what_the_card_requires_is_installed(self, lab: Lab) -> None:
        assert lab.found.obstacle() is None

    def test_declaring_loads_no_framework(self, lab: Lab) -> None:
        module = lab.catalog.manager.offer(lab.found.namespace).module
        loaded = loaded_by(module)
        assert not loaded, f"importing {module} loads {', '.join(loaded)}: name the implementation by a string instead"

    def test_the_implementation_is_there(self, lab: Lab) -> None:
        assert callable(lab.card.implementation())

    def test_every_option_has_a_description_and_a_default(self, lab: Lab) -> None:
        for name, field in lab.card.options.model_fields.items():
            assert field.description, f"option {name!r} of {self.method} has no description"
            assert not field.is_required(), f"option {name!r} of {self.method} has no default"

    def test_the_options_have_a_json_schema(self, lab: Lab) -> None:
        schema = lab.card.options.model_json_schema()
        assert set(schema.get("properties", {})) == set(lab.card.options.model_fields)
        json.dumps(schema)

    def test_the_options_survive_json(self, lab: Lab) -> None:
        options = lab.found.options(dict(self.options))
        assert type(options).model_validate_json(options.model_dump_json()) == options

    def test_every_default_can_be_written_on_the_command_line(self, lab: Lab) -> None:
        defaults = lab.card.options()
        for name in lab.card.options.model_fields:
            value = getattr(defaults, name)
            if isinstance(value, bool | int | float | str):
                assert getattr(lab.found.options({name: str(value)}), name) == value

    def test_an_unknown_option_is_a_usage_error(self, lab: Lab) -> None:
        with pytest.raises(UsageError, match="no option 'no_such_option'"):
            lab.found.options({"no_such_option": 1})

    def test_an_option_of_a_wrong_type_is_a_usage_error(self, lab: Lab) -> None:
        for name in lab.card.options.model_fields:
            with pytest.raises(UsageError, match=name):
                lab.found.options({name: object()})
