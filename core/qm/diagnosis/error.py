"""Where error arises: every layer's output in both models, sample by sample, by real kernels and by exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qm.diagnosis.explanation import LayerError, Saturating, Saturation
from qm.diagnosis.pair import Pair, watchable
from qm.errors import QmError, Unsupported
from qm.evaluation import matched
from qm.numerics import Comparison
from qm.plugin import Batch, Can, Notes, Progress
from qm.report import rounded
from qm.split import Batches

SATURATION_DB = 1.0
"""Exact kernels round as real ones do: a gain of more than this to the baseline is no rounding."""


@dataclass
class Errors:
    """Artifact against baseline by real kernels and by exact ones, and the one by the other."""

    outputs: Comparison = field(default_factory=Comparison)
    layers: Comparison = field(default_factory=Comparison)
    exact_outputs: Comparison = field(default_factory=Comparison)
    exact_layers: Comparison = field(default_factory=Comparison)
    apart: Comparison = field(default_factory=Comparison)

    @property
    def sqnr_db(self) -> float:
        """Error of the worst output."""
        return self.outputs.sqnr_db


def measure(pair: Pair, judging: Batches, progress: Progress, notes: Notes) -> Errors:
    """Run both models side by side.

    Raises:
        Unsupported: one of them does not run here.
    """
    for side in (pair.before, pair.after):
        if not side.can(Can.RUN):
            raise Unsupported(f"{side.loader.plugin} does not run models", hint="Convert the model to another format.")
    there = set(watchable(pair.before, pair.layers, judging[0], notes))
    there &= set(watchable(pair.after, pair.layers, judging[0], notes))
    names = [layer.name for layer in pair.layers if layer.name in there]
    exact = pair.after.can(Can.EXACT) and _exact(pair, judging[0], names, notes)
    errors = Errors()
    for batch in progress.track(judging, "comparing layers", len(judging)):
        _update(errors, pair, batch, names, exact=exact)
    return errors


def _exact(pair: Pair, batch: Batch, names: Sequence[str], notes: Notes) -> bool:
    try:
        pair.after.model.run_exact(batch, names)
    except QmError as e:
        notes.say(f"exact kernels do not run the artifact, so that saturation cannot be told: {e.message}")
        return False
    return True


def _update(errors: Errors, pair: Pair, batch: Batch, names: Sequence[str], *, exact: bool) -> None:
    outputs = [s.name for s in pair.before.model.outputs()]
    before, seen_before = _parted(pair.before.model.run(batch, names), names, outputs)
    theirs = [s.name for s in pair.after.model.outputs()]
    after, seen_after = _parted(pair.after.model.run(batch, names), names, theirs)
    errors.outputs.update(before, matched(before, after))
    errors.layers.update(seen_before, seen_after)
    if exact:
        right, seen_right = _parted(pair.after.model.run_exact(batch, names), names, theirs)
        errors.exact_outputs.update(before, matched(before, right))
        errors.exact_layers.update(seen_before, seen_right)
        errors.apart.update(seen_right, seen_after)


def _parted(values: Batch, names: Sequence[str], outputs: Sequence[str]) -> tuple[Batch, Batch]:
    return {name: values[name] for name in outputs}, {name: values[name] for name in names}


def by_layer(errors: Errors, pair: Pair) -> tuple[LayerError, ...]:
    """Error of each layer's output, in execution order."""
    rows = []
    reached = 0.0
    for layer in pair.layers:
        tally = errors.layers.outputs.get(layer.name)
        if tally is None:
            continue
        exact = errors.exact_layers.outputs.get(layer.name)
        noise = _noise(tally.sqnr_db)
        rows.append(
            LayerError(
                layer=layer.name,
                kind=layer.kind,
                scheme=str(pair.schemes[layer.name]) if layer.name in pair.schemes else None,
                sqnr_db=rounded(tally.sqnr_db, 2),
                exact_sqnr_db=None if exact is None else rounded(exact.sqnr_db, 2),
                arises=round(max(0.0, 1 - reached / noise), 4) if noise else 0.0,
            )
        )
        reached = noise
    return tuple(rows)


def suspicion(errors: Errors, pair: Pair) -> dict[str, float]:
    """What each layer adds to the noise of its output, as a share of the signal: a guess at which to try first."""
    added: dict[str, float] = {}
    reached = 0.0
    for layer in pair.layers:
        tally = errors.layers.outputs.get(layer.name)
        noise = _noise(tally.sqnr_db) if tally is not None else reached
        added[layer.name] = noise - reached
        reached = noise
    return added


def saturation(errors: Errors, pair: Pair, notes: Notes) -> Saturation | None:
    """What saturates, decided by what real and exact kernels make of the same file; None where nothing does."""
    real, exact = errors.outputs.sqnr_db, errors.exact_outputs.sqnr_db
    risky = _hazards(pair, notes) if errors.exact_outputs.samples else {}
    if not exact - real >= SATURATION_DB:
        if risky:
            notes.say(
                f"weights of {len(risky)} layers can saturate on CPUs whose kernels add products in 16 bits; "
                "those of this machine do not"
            )
        return None
    names = sorted(risky or errors.apart.outputs, key=lambda name: _noise(_apart(errors, name)), reverse=True)
    differing = [name for name in names if _noise(_apart(errors, name)) > 0] or names
    layers = tuple(Saturating(layer=n, seen=risky.get(n, "real and exact kernels differ")) for n in differing)
    return Saturation(real_db=round(real, 2), exact_db=round(min(exact, 200.0), 2), layers=layers)


def _hazards(pair: Pair, notes: Notes) -> dict[str, str]:
    try:
        return {hazard.layer: hazard.seen for hazard in pair.after.model.hazards()}
    except Unsupported as e:
        notes.say(e.message)
        return {}


def _apart(errors: Errors, name: str) -> float:
    """SQNR of a layer by real kernels against exact ones."""
    tally = errors.apart.outputs.get(name)
    return float("inf") if tally is None else tally.sqnr_db


def _noise(sqnr_db: float) -> float:
    """Noise over signal; where it cannot be said, none."""
    return 0.0 if sqnr_db != sqnr_db else float(min(10 ** (-sqnr_db / 10), 1e12))
