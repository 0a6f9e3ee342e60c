from __future__ import annotations

import subprocess
import sys

from qm.plugin import Benchmark, Card, Exporter, Loader, Quantizer, Scheme
from qm_onnx.plugin import qm_cards


def test_declaring_the_cards_imports_no_framework() -> None:
    code = (
        "import sys, qm_onnx.plugin as p; list(p.qm_cards());"
        "print({m.partition('.')[0] for m in sys.modules} & {'onnx', 'onnxruntime', 'google'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_there_is_a_card_of_each_kind() -> None:
    cards: list[Card] = list(qm_cards())
    names = {kind: [c.name for c in cards if isinstance(c, kind)] for kind in (Loader, Quantizer, Exporter, Benchmark)}
    assert names == {
        Loader: ["load"],
        Quantizer: ["ptq", "dynamic", "weights", "fp16"],
        Exporter: ["save"],
        Benchmark: ["run"],
    }


def test_every_implementation_is_there() -> None:
    assert all(callable(card.implementation()) for card in qm_cards())


def test_every_default_is_one_of_the_schemes_in_canonical_form() -> None:
    for card in qm_cards():
        if isinstance(card, Quantizer):
            assert card.default in card.schemes
            assert {str(Scheme.parse(text)) for text in card.schemes} == card.schemes
