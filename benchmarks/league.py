"""The league: the same models, calibration bytes, evaluator and clock over this project and its peers.

    python benchmarks/league.py FOLDER                                 # install the peers, quantize, judge, tabulate
    python benchmarks/league.py FOLDER --only qm nncf --models resnet8 --again
    python benchmarks/league.py FOLDER --page docs/explanation/league.md

FOLDER takes the environments, the models and a JSON file a row, written whole once the row is done; a rerun skips
those. Each peer runs in a virtual environment of its own, made where it is not there yet; one that cannot be installed,
or fails on a model, is a row that says so. ``--page`` writes the tables between the page's markers, and the picture
beside it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import avx2_runtime
from peers import page
from peers.attempt import Failed, attempt
from peers.entrant import ENTRANTS, Entrant
from peers.environment import HERE, PACKAGES, NotInstalled, python, versions
from peers.subject import SUBJECTS, Absent, Subject, write_whole
from sound import shared

BENCHMARKS = Path(__file__).parent
FLOAT = {".tflite": ("tensorflow", "use_tensorflow.py"), ".pte": ("torchao", "use_torchao.py")}
"""The environment and the recipe that make the float file, where it is made of another."""


def main() -> int:
    args = _options()
    data = shared()
    if data is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return 0
    if args.page:
        rows = {name: list(_rows(args.folder / name)) for name in SUBJECTS}
        page.write(args.page, {name: found for name, found in rows.items() if found})
        return 0
    kernels = _kernels(args.folder)
    for name in args.models:
        folder = args.folder / name
        (folder / "made").mkdir(parents=True, exist_ok=True)
        try:
            subject = SUBJECTS[name](data, folder, args.judges)
        except Absent as e:
            print(f"skipped {name}: {e}")
            continue
        if not subject.model.exists():
            _float(subject, args)
        for entrant in ENTRANTS:
            if name in entrant.subjects and any(word.lower() in entrant.slug for word in args.only):
                _row(entrant, subject, kernels, args)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="This project and its peers on the same models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--environments", type=Path, help="the folder of virtual environments (FOLDER/environments)")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="rows whose file name has the word")
    parser.add_argument("--again", action="store_true", help="quantize and judge anew what is done already")
    parser.add_argument("--judge-again", action="store_true", help="judge anew what was made already")
    parser.add_argument("--time", type=float, default=20.0, help="seconds of timing a row and set of kernels (20)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that a recipe may take (900)")
    parser.add_argument(
        "--judges",
        type=int,
        default=5000,
        help="test images of CIFAR-10 that judge (5000), and lines of text up to 100",
    )
    parser.add_argument("--page", type=Path, help="only write the tables into this page, and the picture beside it")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    args.environments = (args.environments or args.folder / "environments").resolve()
    return args


def _kernels(folder: Path) -> dict[str, dict[str, str]]:
    """The environment of the judge by set of kernels: this CPU's own, and AVX2 alone where that is something else."""
    found = {"native": dict(os.environ)}
    place = folder / "avx2"
    try:
        if avx2_runtime.is_needed(avx2_runtime.cpu_flags()):
            if not (place / "onnxruntime" / "capi" / "_cpuid_avx2.so").exists():
                avx2_runtime.make(place, force=True)
            found["avx2"] = avx2_runtime.environment(place)
    except avx2_runtime.CannotMake as e:
        print(f"no AVX2 kernels: {e}")
    return found


def _float(subject: Subject, args: argparse.Namespace) -> None:
    environment, script = FLOAT[subject.model.suffix]
    interpreter = python(environment, args.environments)
    options = {"scheme": "float"}
    attempt(
        interpreter,
        script,
        options,
        subject,
        subject.model,
        source=subject.source,
        limit_s=args.limit,
    )


def _row(entrant: Entrant, subject: Subject, kernels: Mapping[str, Mapping[str, str]], args: Any) -> None:
    """Carry out one row, as far as it is not done."""
    file = subject.folder / f"{entrant.slug}.json"
    made = subject.folder / "made" / f"{entrant.slug}{subject.model.suffix}"
    asked = {
        "options": dict(entrant.options),
        "packages": list(PACKAGES.get(entrant.environment, ())),
        "samples": subject.calibrating,
    }
    row = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    done = row.get("asked") == asked and not args.again
    if done and (row["failed"] or (row["judged"] and not args.judge_again)):
        return
    print(f"{subject.folder.name}: {entrant.tool}, {entrant.recipe}", flush=True)
    if not done:
        row = {"subject": subject.title, "tool": entrant.tool, "recipe": entrant.recipe, "asked": asked}
        row |= {"failed": None, "judged": {}, **_made(entrant, subject, made, args)}
    if row["failed"] is None:
        other = subject.model.suffix != ".onnx"  # Whose runtime has no copy without VNNI.
        chosen = {name: env for name, env in kernels.items() if name == "native" or not other}
        try:
            row["judged"] = {name: _judged(subject, made, name, env, args.time) for name, env in chosen.items()}
        except Failed as e:
            row |= {"failed": f"made, but not judged: {e}", "judged": {}}
    write_whole(file, row)
    if row["failed"]:
        print(f"  {row['failed']}", flush=True)


def _made(entrant: Entrant, subject: Subject, to: Path, args: Any) -> dict[str, Any]:
    """The tool's version and what the recipe cost, or why there is no model."""
    try:
        interpreter = python(entrant.environment, args.environments)
        found = _versions(entrant, interpreter)
        source = _start(entrant, subject)
        cost = attempt(interpreter, entrant.script, entrant.options, subject, to, source=source, limit_s=args.limit)
    except NotInstalled as e:
        return {"failed": f"not installed: {e}"}
    except Failed as e:
        return {"version": found[entrant.package], "versions": found, "failed": str(e)}
    return {"version": found[entrant.package], "versions": found, "cost": asdict(cost)}


def _start(entrant: Entrant, subject: Subject) -> Path:
    """The file that the recipe starts from."""
    if entrant.from_source:
        return subject.source
    return subject.model if entrant.environment == HERE else subject.prepared or subject.model


def _versions(entrant: Entrant, interpreter: Path) -> dict[str, str]:
    if entrant.environment == HERE:
        return {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    return versions(interpreter)


def _judged(subject: Subject, made: Path, kernels: str, env: Mapping[str, str], time_s: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "peers.judge", str(subject.model), str(made), str(subject.folder)]
    command += ["--time", str(time_s), "--reference", f"float.{kernels}"]
    done = subprocess.run(command, cwd=BENCHMARKS, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed(lines[-1][:300] if lines else f"exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one model that are done, in the league's order."""
    for entrant in ENTRANTS:
        file = folder / f"{entrant.slug}.json"
        if file.exists():
            yield json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
