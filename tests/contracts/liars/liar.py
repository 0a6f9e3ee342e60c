"""Cards that break one promise each."""

import itertools
import pickle
import socket
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np

from qm.plugin import (
    Artifact,
    Benchmark,
    Can,
    Exporter,
    Loader,
    LoadJob,
    Needs,
    OpTime,
    Options,
    Plan,
    Planner,
    Quantizer,
    Rule,
    Scheme,
    UsageError,
    hookimpl,
)
from qm_toy.model import ToyModel
from qm_toy.round import quantize as honest
from qm_toy.session import ToySession
from qm_toy.store import load, save
from qm_toy.weight import Float

CAN = {Can.LAYERS, Can.RUN, Can.ACTIVATIONS, Can.SCHEMES}
count = itertools.count()


class Mute(Options):
    level: int


def rounded(job, **changes):
    """What toy.round makes of a job."""
    from qm_toy.plugin import RoundOptions

    return honest(replace(job, options=RoundOptions(), **changes))


def no_scheme(job):
    return ToyModel(job.model.native)


def wrong_scheme(job):
    return rounded(job, plan=Plan({name: Scheme.parse("w4") for name in job.plan.quantized()}))


def every_layer(job):
    return rounded(job, plan=Plan({layer.name: Scheme.parse("w8") for layer in job.model.layers()}))


def meddler(job):
    made = rounded(job)
    for layer in job.model.native:
        np.add(layer.bias, 1, out=layer.bias)
    return made


def dice(job):
    made = rounded(job)
    layers = [replace(n, bias=n.bias + np.float32(np.random.default_rng().normal() * 1e-4)) for n in made.native]
    return ToyModel(layers if job.plan.quantized() else made.native)


def litter(job):
    Path("calibration.tmp").write_text("left", encoding="utf-8")
    return rounded(job)


def caller(job):
    try:
        with socket.socket() as connection:
            connection.settimeout(1)
            connection.connect(("192.0.2.1", 80))
    except OSError:
        pass
    return rounded(job)


def deaf(job):
    try:
        return rounded(job)
    except KeyboardInterrupt:
        return ToyModel(job.model.native)


def scratch(job):
    folder = Path(tempfile.mkdtemp())
    (folder / "half").write_text("left", encoding="utf-8")
    made = rounded(job)
    (folder / "half").unlink()
    folder.rmdir()
    return made


def garbage(job):
    made = rounded(job)
    return ToyModel([replace(n, bias=n.bias + 100) for n in made.native])


def infinite(job):
    made = rounded(job)
    return ToyModel([replace(n, bias=n.bias * np.float32(np.nan)) for n in made.native])


def lenient(job):
    return rounded(job, plan=Plan({n: Scheme.parse("w8") for n in job.plan.quantized()}))


def greedy(job):
    if not len(job.data):
        raise UsageError("there are no samples", hint="Give some.")
    return rounded(job)


def bloated(job):
    made = rounded(job)
    layers = list(made.native)
    big = Float(array=np.zeros((1 << 14, layers[-1].weight.shape[0]), np.float32))
    last = replace(layers[-1], name="tail", tensor="tail", weight=big, bias=np.zeros(1 << 14, np.float32))
    return ToyModel([*layers, last])


def quantizer(name, quantize, **changes):
    given = {"schemes": {"w8"}, "default": "w8", "options": Options, "needs": Needs.NOTHING} | changes
    return Quantizer(name=name, summary=f"{name} lies", impl=quantize or rounded, takes={"toy"}, **given)


def unpickle(job):
    pickle.loads(pickle.dumps({"weights": 1}))  # noqa: S301  - the lie itself
    return load(job)


def crash(job):
    if job.path.is_file() and not job.path.read_bytes():
        raise IndexError("list index out of range")
    return load(job)


def blind(job):
    try:
        return load(job)
    except UsageError:
        raise UsageError("it went wrong") from None


def renamer(job):
    model = load(job)
    return ToyModel([replace(n, name=f"{n.name}-{uuid.uuid4()}") for n in model.native])


def nosy(job):
    return job.bench.model


def guesser(job):
    scheme = "w8" if next(count) % 2 else "float"
    return job.recipe.with_rules(Rule.exactly(job.bench.layers[0].name, scheme))


def stray(job):
    return job.recipe.with_rules(Rule.exactly("nowhere", "w8"))


def forgetful(job):
    return job.recipe.model_copy(update={"seed": 0, "samples": None})


def half_writer(job):
    save(job)
    job.path.write_bytes(job.path.read_bytes()[: job.path.stat().st_size // 2])
    return Artifact(path=job.path, format="toy")


def elsewhere(job):
    return save(replace(job, path=job.path.with_name("other.toy")))


class Timeless(ToySession):
    def profile(self, batch):
        return [OpTime(name="all", kind="Dense", latency_us=0.0)]


def timeless(job):
    return Timeless(load(LoadJob(path=job.artifact.path)))


class OtherAnswers(ToySession):
    def run(self, batch):
        return {"y": super().run(batch)["y"] + 1}


def other_answers(job):
    return OtherAnswers(load(LoadJob(path=job.artifact.path)))


@hookimpl
def qm_cards():
    yield quantizer("honest", rounded, schemes={"w8", "w4"})
    for lie in (no_scheme, every_layer, meddler, dice, litter, caller, deaf, scratch, garbage, infinite, greedy):
        yield quantizer(lie.__name__, lie)
    yield quantizer("wrong_scheme", wrong_scheme)
    yield quantizer("lenient", lenient)
    yield quantizer("mute", rounded, options=Mute)
    yield quantizer("bloated", bloated)
    for lie in (unpickle, crash, blind, renamer):
        yield Loader(name=lie.__name__, summary="lies", impl=lie, suffixes={".toy"}, gives="toy", can=CAN)
    for lie in (nosy, guesser, stray, forgetful):
        yield Planner(name=lie.__name__, summary="lies", impl=lie)
    for lie in (half_writer, elsewhere):
        yield Exporter(name=lie.__name__, summary="lies", impl=lie, takes={"toy"}, gives="toy", suffix=".toy")
    for lie in (timeless, other_answers):
        yield Benchmark(name=lie.__name__, summary="lies", impl=lie, takes={"toy"}, can={Can.PROFILE})
