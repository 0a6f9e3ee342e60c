"""A recipe tried: quantized, written, opened by its real runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qm.catalog import Catalog
from qm.evaluation import matched
from qm.layout import work_out
from qm.numerics import Comparison
from qm.plugin import Artifact, Batch, Dataset, Memo, Model, Notes, Recipe, Session, Silent
from qm.route import Route
from qm.split import Batches
from qm.step import export_model, open_session, quantize_model


def build(
    catalog: Catalog,
    route: Route,
    model: Model,
    recipe: Recipe,
    *,
    data: Dataset | None,
    folder: Path,
    name: str = "",
    memo: Memo | None = None,
) -> Artifact:
    """What the recipe makes of the model, written to ``folder``; seed and samples are those of a real run.

    ``memo`` keeps what the methods need for other recipes for this model and these samples too.

    Raises:
        QmError: as the same request to ``qm quantize`` does, the audit aside.
    """
    quantized = quantize_model(
        catalog.manager,
        route.quantizers,
        work_out(recipe, model.layers(), route.quantizers),
        model,
        data=data,
        target=route.target,
        seed=recipe.seed,
        progress=Silent(),
        notes=Notes(),
        memo=memo,
    )
    place = folder / (name or f"trial{route.exporter.card.suffix}")
    return export_model(catalog.manager, route.exporter, quantized, place)


def opened(catalog: Catalog, artifact: Artifact) -> Session:
    """The artifact opened by its real runtime, in this process."""
    return open_session(catalog.manager, catalog.benchmark(artifact.format), artifact)


def compared(session: Session, batches: Batches, references: Sequence[Batch]) -> Comparison:
    """The session's outputs against the float model's, batch by batch."""
    comparison = Comparison()
    for batch, reference in zip(batches, references, strict=True):
        comparison.update(reference, matched(reference, session.run(batch)))
    return comparison
