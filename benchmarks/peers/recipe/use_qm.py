"""This project: one of its methods with its options, over all layers; neither audit nor timing."""

from collections.abc import Iterator

import job

import qm.target
from qm.catalog import Catalog
from qm.plugin import Batch, Notes, Plan, QuantizeJob, Quantizer, Scheme
from qm.step import export_model, load_model


class Samples:
    """The samples as methods take them."""

    labels = None

    def __init__(self, told: job.Job, name: str) -> None:
        self.told, self.name = told, name

    def __len__(self) -> int:
        return len(self.told.samples)

    def __iter__(self) -> Iterator[Batch]:
        return ({self.name: x} for batch in self.told.batches() for x in batch.values())


def main() -> None:
    told = job.Job.read()
    options = dict(told.options)
    target, scheme = qm.target.find(options.pop("target", "host")), Scheme.parse(options.pop("scheme", "w8a8"))
    catalog = Catalog()
    method = catalog.find(options.pop("method"), Quantizer)
    model = load_model(catalog.manager, catalog.loader(told.model), told.model)
    plan = Plan({layer.name: scheme for layer in model.layers()})
    notes = Notes()
    made = method.card.implementation()(
        QuantizeJob(
            model=model,
            plan=plan,
            data=Samples(told, model.inputs()[0].name),
            target=target,
            options=method.options(options),
            notes=notes,
        )
    )
    export_model(catalog.manager, catalog.exporter(made.format, told.to.suffix), made, told.to)
    print("\n".join(notes))


if __name__ == "__main__":
    main()
