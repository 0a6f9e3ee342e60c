"""A framework whose models do what their JSON says: ``{"inputs": {"x": [null, 16]}, "do": "abort", "after": 5}``.

Without a deed they are a fixed random linear layer, of ``classes`` outputs, shifted by ``error`` times noise.
"""

import json
import os
import signal
import time

import numpy as np

from qm.plugin import Benchmark, Layer, Loader, Model, Session, TensorSpec, hookimpl


class Rival(Session):
    def __init__(self, job):
        told = json.loads(job.artifact.path.read_text(encoding="utf-8"))
        self.deed, self.after = told.get("do", ""), told.get("after", 0)
        self.shapes = told.get("inputs", {"x": [None, 16]})
        self.outputs = told.get("outputs", ["y"])
        self.dtype = told.get("dtype", "float32")
        rng = np.random.default_rng(0)
        weight = rng.normal(size=(16, told.get("classes", 10)))
        self.weight = weight + told.get("error", 0.0) * rng.normal(size=weight.shape)
        self.runs = 0

    @property
    def runtime(self):
        return "rival 1.0"

    def inputs(self):
        return [TensorSpec(name=n, shape=tuple(shape), dtype=self.dtype) for n, shape in self.shapes.items()]

    def run(self, batch):
        assert set(batch) == set(self.shapes), sorted(batch)
        self.runs += 1
        if self.runs > self.after and self.deed:
            getattr(self, "do_" + self.deed)()
        x = sum(np.asarray(batch[name], np.float64).reshape(1, -1)[:, :16] for name in self.shapes)
        y = (x @ self.weight).astype(np.float32)
        return {name: y * (i + 1) for i, name in enumerate(self.outputs)}

    def do_abort(self):
        os.abort()

    def do_hang(self):
        time.sleep(600)

    def do_kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_raise(self):
        raise RuntimeError("no such kernel")


class RivalModel(Model):
    format = "rival"
    native = None

    def inputs(self):
        return (TensorSpec(name="x", shape=(None, 16), dtype="float32"),)

    outputs = inputs

    def nbytes(self):
        return 8

    def layers(self):
        return [Layer(name="one", kind="Rival", weights=4)]


@hookimpl
def qm_cards():
    yield Benchmark(name="run", summary="Runs rivals.", impl=Rival, takes={"rival"})
    yield Loader(
        name="load", summary="Loads rivals.", impl=lambda job: RivalModel(), suffixes={".rival"}, gives="rival"
    )
