"""A framework whose models do what their file says: ``double``, ``crash``, ``hang`` and the like."""

import os
import signal
import sys
import time

import numpy as np

from qm.plugin import Benchmark, Layer, Loader, Model, Scheme, Session, TensorSpec, UsageError, hookimpl

X = TensorSpec(name="x", shape=(None,), dtype="float32")


class Mime(Session):
    def __init__(self, job):
        self.deed, _, self.amount = job.artifact.path.read_text(encoding="utf-8").partition(" ")
        if self.deed == "refuse":
            raise UsageError("'refuse' is not a model", hint="Name another.")
        if self.deed == "die-at-once":
            os.kill(os.getpid(), signal.SIGKILL)
        self.ballast = np.ones(int(self.amount) << 17) if self.deed == "ballast" else None
        self.threads = job.threads

    @property
    def runtime(self):
        return f"mime 1.0, {self.threads} thread" + ("s" if self.threads != 1 else "")

    def inputs(self):
        return (X,)

    def run(self, batch):
        return getattr(self, "do_" + self.deed)(batch["x"])

    def do_double(self, x):
        return {"y": 2 * x}

    do_ballast = do_double

    def do_spin(self, x):
        """A known amount of work: so many additions."""
        total = 0
        for i in range(int(self.amount)):
            total += i
        return {"y": x + total}

    def do_threads(self, x):
        return {"y": np.array([int(os.environ["OMP_NUM_THREADS"]), self.threads])}

    def do_print(self, x):
        print("from Python")
        os.write(1, b"from a native library\n")
        return self.do_double(x) if sys.stdin.read() == "" else {}

    def do_crash(self, x):
        os.write(2, b"last words\n")
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_kill(self, x):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_leave(self, x):
        os._exit(7)

    def do_hang(self, x):
        time.sleep(600)

    def do_raise(self, x):
        raise ValueError("no such luck")

    def do_list(self, x):
        return [x]

    def do_pid(self, x):
        return {"y": np.array([os.getpid()])}


class MimeModel(Model):
    format = "mime"
    native = None

    def inputs(self):
        return (X,)

    outputs = inputs

    def nbytes(self):
        return 8

    def layers(self):
        return [Layer(name="one", kind="Mime", weights=4)]

    def schemes(self):
        return {"one": Scheme.parse("w8a8")}


@hookimpl
def qm_cards():
    yield Benchmark(name="run", summary="Runs mimes.", impl=Mime, takes={"mime"})
    yield Benchmark(name="wrong", summary="Returns no session.", impl=lambda job: 3, takes={"mime"})
    yield Loader(name="load", summary="Loads mimes.", impl=lambda job: MimeModel(), suffixes={".mime"}, gives="mime")
