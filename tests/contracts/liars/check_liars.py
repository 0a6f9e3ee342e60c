"""The contracts over cards that lie; most of what is here must fail. ``test_kit.py`` runs it."""

import qm_toy
from qm.testing import BenchmarkContract, ExporterContract, LoaderContract, PlannerContract, QuantizerContract

pytest_plugins = ["qm.testing"]


class Toy:
    least_sqnr_db = 5.0

    def model(self, folder):
        return qm_toy.make(folder / "model.toy")


def contract(kind, method):
    return type("Made", (Toy, kind), {"method": method})


TestHonest = contract(QuantizerContract, "untrue.honest")
TestNoScheme = contract(QuantizerContract, "untrue.no_scheme")
TestWrongScheme = contract(QuantizerContract, "untrue.wrong_scheme")
TestEveryLayer = contract(QuantizerContract, "untrue.every_layer")
TestMeddler = contract(QuantizerContract, "untrue.meddler")
TestDice = contract(QuantizerContract, "untrue.dice")
TestLitter = contract(QuantizerContract, "untrue.litter")
TestCaller = contract(QuantizerContract, "untrue.caller")
TestDeaf = contract(QuantizerContract, "untrue.deaf")
TestScratch = contract(QuantizerContract, "untrue.scratch")
TestGarbage = contract(QuantizerContract, "untrue.garbage")
TestInfinite = contract(QuantizerContract, "untrue.infinite")
TestLenient = contract(QuantizerContract, "untrue.lenient")
TestGreedy = contract(QuantizerContract, "untrue.greedy")
TestMute = contract(QuantizerContract, "untrue.mute")
TestBloated = contract(QuantizerContract, "untrue.bloated")
TestHeavy = contract(QuantizerContract, "untrueheavy.heavy")
TestUnknown = contract(QuantizerContract, "untrue.unknown")
TestPickle = contract(LoaderContract, "untrue.unpickle")
TestCrash = contract(LoaderContract, "untrue.crash")
TestBlind = contract(LoaderContract, "untrue.blind")
TestRenamer = contract(LoaderContract, "untrue.renamer")
TestNosy = contract(PlannerContract, "untrue.nosy")
TestGuesser = contract(PlannerContract, "untrue.guesser")
TestStray = contract(PlannerContract, "untrue.stray")
TestForgetful = contract(PlannerContract, "untrue.forgetful")
TestHalfWriter = contract(ExporterContract, "untrue.half_writer")
TestElsewhere = contract(ExporterContract, "untrue.elsewhere")
TestTimeless = contract(BenchmarkContract, "untrue.timeless")
TestOtherAnswers = contract(BenchmarkContract, "untrue.other_answers")
