"""Does the artifact keep what the plan promised? Asked of the file itself, opened afresh in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from qm import suitability
from qm.catalog import Catalog
from qm.errors import QmError, Unsupported
from qm.evaluation import Evaluation, evaluate
from qm.numerics import Tally
from qm.plugin import Artifact, Batch, Can, Layer, Model, OpTime, Plan, Progress, Scheme, Target
from qm.report import Finding, LayerError, Level, Profile, rounded, shortened
from qm.scheme import Activations
from qm.split import Batches
from qm.worker import Worker

LOWEST_SQNR_DB = 0.0
"""Below this the difference is larger than the output itself: the artifact does not compute the same function."""
LOW_SQNR_DB = 10.0
SPOILED_SLICE_DB = 3.0
WATCHED_SAMPLES = 8


@dataclass
class Audit:
    """What was seen. ``schemes`` is what each layer is really in; ``evaluation`` is None where nothing could be run."""

    findings: list[Finding] = field(default_factory=list)
    schemes: dict[str, Scheme] = field(default_factory=dict)
    runtime: str = ""
    evaluation: Evaluation | None = None
    operations: list[OpTime] = field(default_factory=list)
    layers: list[LayerError] = field(default_factory=list)

    @property
    def broken(self) -> list[Finding]:
        """The promises that were not kept."""
        return [f for f in self.findings if f.level is Level.BROKEN]

    def add(self, check: str, level: Level, seen: str, *, layer: str = "", todo: str = "") -> None:
        """Note a finding."""
        self.findings.append(Finding(check=check, level=level, seen=seen, layer=layer, next=todo))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the artifact is held against.

    ``left_out`` names the layers that a rule wants in float; ``again`` is the command that made the artifact, to build
    the next one from; ``wider`` is the next scheme up that the method offers; ``doubt`` is what is odd about the data;
    ``read`` tells the schemes of an artifact that is not to be run, since it may be larger than memory.
    """

    model: Model
    layers: Sequence[Layer]
    plan: Plan
    left_out: frozenset[str]
    float_nbytes: int
    artifact: Artifact
    judging: Batches
    labels: Sequence[int] | None
    target: Target
    host: Target
    synthetic: bool
    again: str
    wider: Scheme | None = None
    doubt: str | None = None
    read: Callable[[], Mapping[str, Scheme]] | None = None


def audit(
    evidence: Evidence, *, benchmark: str | None, loader: str | None, can: frozenset[Can], progress: Progress
) -> Audit:
    """Every check on one artifact. Nothing is raised for a broken promise: it is a finding."""
    seen = Audit()
    check_size(seen, evidence)
    seen.findings += suitability.check_machine(evidence.target, evidence.host)
    seen.findings += suitability.check_memory(evidence.target, evidence.artifact)
    if evidence.read is not None:
        check_unrun(seen, evidence, evidence.read, runs=benchmark is not None)
        return seen
    if benchmark is None:
        seen.add("opens", Level.WARNING, "no installed plugin runs this format, so that the file was not opened")
        check_data(seen, evidence)
        return seen
    with _as_findings(seen, "opens"), Worker(evidence.artifact, benchmark=benchmark, loader=loader) as worker:
        seen.runtime = worker.runtime
        seen.add("opens", Level.OK, f"{worker.runtime} opens it")
        if loader is not None and Can.SCHEMES in can:
            with _as_findings(seen, "schemes"):
                seen.schemes = worker.schemes()
                check_schemes(seen, evidence)
                check_coverage(seen, evidence)
                check_target(seen, evidence, worker)
        with _as_findings(seen, "runs"):
            check_outputs(seen, evidence, worker, progress)
        with _as_findings(seen, "kernels"):
            check_kernels(seen, evidence, worker)
        if loader is not None and Can.ACTIVATIONS in can:
            seen.layers = error_by_layer(seen, evidence, worker)
    check_data(seen, evidence)
    return seen


@contextmanager
def _as_findings(seen: Audit, check: str) -> Iterator[None]:
    try:
        yield
    except QmError as e:
        seen.add(check, Level.BROKEN, e.message, todo=e.hint)


def check_unrun(seen: Audit, evidence: Evidence, read: Callable[[], Mapping[str, Scheme]], *, runs: bool) -> None:
    """What the file itself tells of a model that may be larger than memory."""
    with _as_findings(seen, "schemes"):
        seen.schemes = dict(read())
        check_schemes(seen, evidence)
        check_coverage(seen, evidence)
        seen.findings += suitability.check_schemes(evidence.target, seen.schemes)
    if runs:
        seen.add(
            "runs",
            Level.WARNING,
            "not run: the weights of the original stay on disk, since they may be larger than memory",
            todo="Give samples with --data where both models fit into memory: then they are run and compared.",
        )
    else:
        seen.add(
            "runs",
            Level.WARNING,
            "not run: the file holds weights alone, and no plugin runs its format",
            todo="Give it to the program that it is for, and compare the answers there.",
        )


def check_data(seen: Audit, evidence: Evidence) -> None:
    """What is odd about the samples is said, unless the float model is right about most of them: then they fit it."""
    labels, answers = (seen.evaluation.labels, seen.evaluation.before) if seen.evaluation else ([], [])
    right = len(labels) == len(answers) and sum(a == b for a, b in zip(labels, answers, strict=True)) > len(labels) / 2
    if evidence.doubt and not right:
        what, _, todo = evidence.doubt.partition("; ")
        seen.add("data", Level.WARNING, what, todo=f"{todo[:1].upper()}{todo[1:]}, see docs/how-to/data.md.")


def check_size(seen: Audit, evidence: Evidence) -> None:
    """The file is smaller, or it is said that it is not."""
    before, after = evidence.float_nbytes, evidence.artifact.nbytes
    converted = f" as {evidence.artifact.path.suffix}" if evidence.model.format != evidence.artifact.format else ""
    text = f"{after:,} bytes, {after / before:.2f} of the original's {before:,}{converted}"
    if after < before:
        seen.add("size", Level.OK, text)
    else:
        seen.add(
            "size",
            Level.WARNING,
            f"not smaller: {text}",
            todo="The weights are few against the rest of the file; quantize for speed alone, or not at all.",
        )


def check_schemes(seen: Audit, evidence: Evidence) -> None:
    """Each layer is stored and computed as the plan says, by what the file itself tells."""
    asked = evidence.plan.quantized()
    missed: dict[str, list[str]] = {}
    for name, scheme in evidence.plan.layers.items():
        got = seen.schemes.get(name)
        if got is None and not scheme.is_float:
            missed.setdefault(f"asked for {scheme}, not found in the file", []).append(name)
        elif got is not None and got != scheme:
            if _differ_in_granularity_only(got, scheme):
                seen.add(
                    "schemes", Level.NOTE, f"{got} instead of {scheme}: one scale is shared more widely", layer=name
                )
            elif scheme.is_float:
                seen.add("schemes", Level.WARNING, f"planned to stay in float, is in {got}", layer=name)
            else:
                missed.setdefault(f"asked for {scheme}, is in {got}", []).append(name)
    for what, names in missed.items():
        seen.add(
            "schemes",
            Level.BROKEN,
            f"{len(names)} of {len(asked)} layers: {what}",
            layer=shortened(names),
            todo=f"Leave {names[0]!r} in float: add a rule for it to the recipe that qm plan writes.",
        )
    if not missed:
        kept = len(evidence.plan.layers) - len(asked)
        seen.add(
            "schemes",
            Level.OK,
            f"all {len(asked)} layers got what was asked" + (f", {kept} stay in float" if kept else ""),
        )


def _differ_in_granularity_only(a: Scheme, b: Scheme) -> bool:
    return (a.weight_bits, a.activations, a.activation_bits) == (b.weight_bits, b.activations, b.activation_bits)


def check_outputs(seen: Audit, evidence: Evidence, worker: Worker, progress: Progress) -> None:
    """The artifact, on its real runtime, gives finite outputs that agree with the float model's."""
    if not evidence.judging:
        seen.add("agrees", Level.WARNING, "no inputs to compare on could be made up", todo="Give samples with --data.")
        return
    total = len(evidence.judging)
    batches = progress.track(evidence.judging, "comparing", total)
    pairs = ((evidence.model.run(batch), next(worker.run([batch]))) for batch in batches)
    evaluation = evaluate(pairs, evidence.labels)
    seen.evaluation = evaluation
    comparison = evaluation.comparison
    if not comparison.finite:
        seen.add(
            "finite",
            Level.BROKEN,
            "an output has NaN or infinity where the float model's is finite",
            todo="Leave the layers before it in float, or take a wider scheme.",
        )
        return
    seen.add("finite", Level.OK, f"outputs are finite on {total} samples")
    _check_agreement(seen, evidence, evaluation)
    _check_slices(seen, evaluation)


def _check_agreement(seen: Audit, evidence: Evidence, evaluation: Evaluation) -> None:
    sqnr, n = evaluation.comparison.sqnr_db, evaluation.comparison.samples
    agreement = evaluation.comparison.agreement
    made_up = " (made-up inputs: nothing follows for accuracy)" if evidence.synthetic else ""
    if np.isnan(sqnr):
        seen.add(
            "agrees", Level.WARNING, "the outputs have other shapes than the float model's, and cannot be compared"
        )
        return
    top = "" if np.isnan(agreement) else f", top-1 agreement {agreement:.1%}"
    text = f"{sqnr:.1f} dB SQNR to the float model{top}, on {n} samples{made_up}"
    if sqnr < LOWEST_SQNR_DB:
        level = Level.WARNING if evidence.synthetic else Level.BROKEN
    else:
        level = Level.WARNING if sqnr < LOW_SQNR_DB else Level.OK
    seen.add("agrees", level, text, todo="" if level is Level.OK else remedy(evidence))


def remedy(evidence: Evidence) -> str:
    """What to try next where the error is large."""
    if evidence.synthetic:
        return "Give real samples with --data before you judge."
    if evidence.wider is not None:
        return f"Try more bits: {evidence.again} --scheme {evidence.wider}"
    return "Leave the layers that lose most in float: write a recipe with qm plan, and add rules for them."


def _check_slices(seen: Audit, evaluation: Evaluation) -> None:
    """An output can look fine as a whole while one slice of it, such as a detector's scores, is lost."""
    for name, tally in evaluation.comparison.outputs.items():
        if not tally.sqnr_db >= LOW_SQNR_DB:
            continue
        for axis, values in tally.slice_sqnr_db.items():
            spoiled = np.flatnonzero(values < SPOILED_SLICE_DB)
            if 2 <= values.size <= 256 and spoiled.size:
                seen.add(
                    "slices",
                    Level.WARNING,
                    f"output {name!r} is right as a whole ({tally.sqnr_db:.1f} dB), but {spoiled.size} of "
                    f"{values.size} slices along axis {axis} are lost (first: {spoiled[0]})",
                    todo="Leave the last layers in float: values of very different sizes share one scale there.",
                )
                break


def check_kernels(seen: Audit, evidence: Evidence, worker: Worker) -> None:
    """Where the runtime tells, layers promised in integers ran on integer kernels."""
    promised = {n for n, s in evidence.plan.quantized().items() if s.activations is not Activations.FLOAT}
    if not evidence.judging:
        return
    try:
        seen.operations = worker.profile(evidence.judging[0])
    except Unsupported:
        if promised:
            seen.add("kernels", Level.NOTE, f"{seen.runtime} does not tell which kernels ran")
        return
    ran = {op.layer: op.integer for op in seen.operations if op.layer in promised and op.integer is not None}
    slow = [name for name in evidence.plan.layers if ran.get(name) is False]
    wide = [n for n in slow if evidence.plan[n].activation_bits > 8]
    narrow = [n for n in slow if n not in wide]
    if narrow:
        seen.add(
            "kernels",
            Level.WARNING,
            f"{len(narrow)} of {len(promised)} layers ran on float kernels, which is slower than float alone",
            layer=shortened(narrow),
            todo="Leave these layers in float, or take a weight-only scheme.",
        )
    taken = [m.layer for m in seen.operations if m.integer and m.layer and evidence.plan[m.layer].is_float]
    if taken:
        seen.add(
            "kernels",
            Level.WARNING,
            f"the runtime multiplies integers in {len(taken)} layers that are in float in the file",
            layer=shortened(taken),
            todo="Quantize these layers too, or leave their neighbours in float.",
        )
    if wide:
        seen.add(
            "kernels",
            Level.NOTE,
            f"{len(wide)} layers with 16-bit activations run on float kernels here",
            layer=shortened(wide),
        )
    left = [m for m in seen.operations if m.fast is False and m.layer and not evidence.plan[m.layer].is_float]
    if left:
        kinds = ", ".join(sorted({m.kind for m in left}))
        seen.add(
            "kernels",
            Level.WARNING,
            f"{len(left)} of {len(promised)} layers run on kernels that are not the runtime's fast ones: {kinds}",
            layer=shortened([m.layer for m in left]),
            todo="See with --benchmark what that costs, or take a scheme that the fast kernels serve.",
        )
    if ran and not slow:
        seen.add("kernels", Level.OK, f"{len(ran)} of {len(promised)} layers were seen on integer kernels")


def error_by_layer(seen: Audit, evidence: Evidence, worker: Worker) -> list[LayerError]:
    """The error of each layer's activation on a few samples, in the model's order; none where they cannot be watched.

    Layers whose activations differ in shape, as where a planner split one, are left out.
    """
    names = [m.name for m in evidence.layers if m.name in seen.schemes]
    tallies = {name: Tally() for name in names}
    judging = evidence.judging
    try:
        for batch in (judging[i] for i in range(min(WATCHED_SAMPLES, len(judging)))):
            before, after = evidence.model.run(batch, watch=names), worker.activations(batch, names)
            for name, tally in tallies.items():
                # Integers where the float model has floats are codes that a later operation rescales: no error to see.
                if before[name].dtype.kind == after[name].dtype.kind:
                    tally.update(before[name], after[name])
    except QmError:
        # It is there to be looked at, and promises nothing: what cannot be watched is not a finding.
        return []
    known = ((name, tally) for name, tally in tallies.items() if not np.isnan(tally.sqnr_db))
    return [LayerError(layer=name, sqnr_db=rounded(tally.sqnr_db, 2)) for name, tally in known]


def profiled(artifact: Artifact, batch: Batch, catalog: Catalog) -> Profile | None:
    """Where the time goes in one artifact, None where its runtime does not tell."""
    try:
        with Worker(artifact, benchmark=catalog.benchmark(artifact.format).plugin) as worker:
            return Profile.of(worker.profile(batch))
    except QmError:
        # As above: it is there to be looked at.
        return None


def check_target(seen: Audit, evidence: Evidence, worker: Worker) -> None:
    """What the target will not run, as far as its schemes and operators are known."""
    target, fmt = evidence.target, evidence.artifact.format
    seen.findings += suitability.check_schemes(target, seen.schemes)
    if fmt in target.operators:
        try:
            seen.findings += suitability.check_operators(target, fmt, worker.operators())
        except Unsupported as e:
            seen.add("target", Level.NOTE, f"{e.message}, so that those {target.name} lacks are not known")


def check_coverage(seen: Audit, evidence: Evidence) -> None:
    """The share of the weights that is quantized, since a few layers left in float can hold most of them."""
    total = sum(layer.weights for layer in evidence.layers)
    if not total:
        return
    done = {name for name, scheme in seen.schemes.items() if not scheme.is_float}
    share = sum(layer.weights for layer in evidence.layers if layer.name in done) / total
    wanted = [m for m in evidence.layers if m.name not in evidence.left_out]
    left = sorted((m for m in wanted if m.name not in done), key=lambda m: -m.weights)
    text = f"{share:.1%} of the weights are quantized"
    if sum(m.weights for m in left) <= 0.5 * total:
        seen.add("coverage", Level.OK, text)
    else:
        seen.add(
            "coverage",
            Level.WARNING,
            f"only {text}: {left[0].name!r} ({left[0].kind}) alone has {left[0].weights / total:.0%}",
            layer=shortened([m.name for m in left]),
            todo="See qm plugins --methods for a method that quantizes this kind of layer.",
        )
