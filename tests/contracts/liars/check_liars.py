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


TestHonest = contract(QuantizerContract, "liar.honest")
TestNoScheme = contract(QuantizerContract, "liar.no_scheme")
TestWrongScheme = contract(QuantizerContract, "liar.wrong_scheme")
TestEveryLayer = contract(QuantizerContract, "liar.every_layer")
TestMeddler = contract(QuantizerContract, "liar.meddler")
TestDice = contract(QuantizerContract, "liar.dice")
TestLitter = contract(QuantizerContract, "liar.litter")
TestCaller = contract(QuantizerContract, "liar.caller")
TestDeaf = contract(QuantizerContract, "liar.deaf")
TestScratch = contract(QuantizerContract, "liar.scratch")
TestGarbage = contract(QuantizerContract, "liar.garbage")
TestInfinite = contract(QuantizerContract, "liar.infinite")
TestLenient = contract(QuantizerContract, "liar.lenient")
TestGreedy = contract(QuantizerContract, "liar.greedy")
TestMute = contract(QuantizerContract, "liar.mute")
TestBloated = contract(QuantizerContract, "liar.bloated")
TestHeavy = contract(QuantizerContract, "heavyliar.heavy")
TestUnknown = contract(QuantizerContract, "liar.unknown")
TestPickle = contract(LoaderContract, "liar.unpickle")
TestCrash = contract(LoaderContract, "liar.crash")
TestBlind = contract(LoaderContract, "liar.blind")
TestRenamer = contract(LoaderContract, "liar.renamer")
TestNosy = contract(PlannerContract, "liar.nosy")
TestGuesser = contract(PlannerContract, "liar.guesser")
TestStray = contract(PlannerContract, "liar.stray")
TestForgetful = contract(PlannerContract, "liar.forgetful")
TestHalfWriter = contract(ExporterContract, "liar.half_writer")
TestElsewhere = contract(ExporterContract, "liar.elsewhere")
TestTimeless = contract(BenchmarkContract, "liar.timeless")
TestOtherAnswers = contract(BenchmarkContract, "liar.other_answers")
