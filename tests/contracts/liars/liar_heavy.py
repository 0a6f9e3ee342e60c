"""A declaration module that loads a framework."""

import sys
import types

from liar import quantizer

# As good as an import, where no framework is installed.
sys.modules["tensorflow"] = types.ModuleType("tensorflow")


def qm_cards():
    yield quantizer("heavy", quantize=None)
