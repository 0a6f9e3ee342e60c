"""Kill a search again and again, and see whether anything is lost.

    python benchmarks/tune_kill.py MODEL --data DATA [--kills 10] [--between 10 60] [--time 3m] [-- WORDS FOR qm tune]

Starts ``qm tune`` and kills it, workers too, with SIGKILL at a random moment; looks at all that it left; starts it
again; at last lets it run for ``--time`` and end. After every kill each model of the front is opened in its own runtime
and run on one sample, each has its recipe, and each line of the journal that was whole before is there still. At the
end no trial was carried out twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import qm
from qm.catalog import Catalog
from qm.plugin import Artifact, Recipe
from qm.synthetic import synthetic
from qm.tuning.rack import JOURNAL
from qm.worker import Worker

Lines = list[str]


def command(args: argparse.Namespace, folder: Path, *words: str) -> list[str]:
    """The search, as a user would type it."""
    tune = [sys.executable, "-m", "qm", "tune", args.model, "--data", args.data, "--to", str(folder)]
    return [*tune, *args.more, *words]


def journal(folder: Path) -> Lines:
    """The whole lines of the journal."""
    path = folder / JOURNAL
    return path.read_bytes().rpartition(b"\n")[0].decode().splitlines() if path.exists() else []


def models(folder: Path) -> list[Path]:
    """The models that lie there, hidden ones aside."""
    return [p.with_suffix("") for p in sorted(folder.glob("[!.]*.toml")) if p.with_suffix("").exists()]


def check(folder: Path, known: Lines) -> int:
    """How many models are there and run; SystemExit where anything is broken or lost."""
    if journal(folder)[: len(known)] != known:
        raise SystemExit("the journal lost a line that was whole")
    catalog = Catalog()
    for path in models(folder):
        Recipe.read(path.with_name(path.name + ".toml"))
        fmt = qm.load(path).format
        artifact = Artifact(path=path, format=fmt)
        with Worker(artifact, benchmark=catalog.benchmark(fmt).plugin) as worker:
            next(worker.run(synthetic(worker.inputs, 1, seed=0)))
    recipes = {p.name for p in folder.glob("[!.]*.toml")}
    bare = [p.name for p in folder.glob("[!.]*") if p.suffix in {".onnx", ".tflite", ".pt2", ".pte"}]
    if lonely := [name for name in bare if f"{name}.toml" not in recipes]:
        raise SystemExit(f"without a recipe: {', '.join(lonely)}")
    return len(models(folder))


def kill(args: argparse.Namespace, folder: Path, after_s: float) -> bool:
    """Start the search and kill it; whether it was still at work."""
    process = subprocess.Popen(
        command(args, folder), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(after_s)
    alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill a search again and again.")
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--between", type=float, nargs=2, default=(10.0, 60.0), metavar=("S", "S"))
    parser.add_argument("--time", default="3m", help="how long the last run searches")
    parser.add_argument("--seed", type=int, default=0)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:split])
    args.more = sys.argv[split + 1 :]
    return args


def main() -> None:
    args = parsed()
    rng = random.Random(args.seed)
    base = Path(tempfile.mkdtemp(prefix="qm-kill-"))
    folder, known = base / "found", []
    try:
        for turn in range(args.kills):
            after_s = rng.uniform(*args.between)
            alive = kill(args, folder, after_s)
            count = check(folder, known)
            known = journal(folder)
            print(
                f"kill {turn + 1} after {after_s:.1f} s{'' if alive else ' (it had ended)'}: {max(0, len(known) - 1)} "
                f"trials kept, {count} models run",
                flush=True,
            )
        done = subprocess.run(command(args, folder, "--resume", "--time", args.time), check=False, text=True)
        count = check(folder, known)
        keys = [json.loads(line)["key"] for line in journal(folder)[1:]]
        if len(keys) != len(set(keys)):
            raise SystemExit("a trial was carried out twice")
        print(f"{len(keys)} trials, none lost, none twice; {count} models run; qm tune ended with {done.returncode}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
