"""What a benchmark promises."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import pytest

from qm.errors import QmError
from qm.plugin import Artifact, Benchmark, BenchmarkJob, Can, Card, Session, Unsupported
from qm.testing.contract import Contract
from qm.testing.fixture import Isolation
from qm.testing.lab import Lab, sqnr_db


class BenchmarkContract(Contract):
    """A benchmark; the contract's model must be an artifact of a format that the card takes.

    ``run_db`` is how near the session must be to the model's own run: a session may fuse what a model does not.
    """

    kind: ClassVar[type[Card]] = Benchmark
    run_db: ClassVar[float] = 80.0

    def session(self, lab: Lab, *, threads: int = 1, path: Path | None = None) -> Session:
        """The model's file opened by the benchmark under test."""
        artifact = Artifact(path=path or lab.path, format=lab.model.format)
        options = lab.found.options(dict(self.options))
        session: Session = lab.card.implementation()(BenchmarkJob(artifact=artifact, threads=threads, options=options))
        return session

    def test_the_models_format_is_one_it_takes(self, lab: Lab) -> None:
        assert lab.model.format in lab.card.takes

    def test_the_catalog_finds_a_benchmark_for_each_format_it_takes(self, lab: Lab) -> None:
        for fmt in lab.card.takes:
            assert fmt in lab.catalog.benchmark(fmt).card.takes

    def test_the_runtime_is_named_on_one_line(self, lab: Lab) -> None:
        runtime = self.session(lab).runtime
        assert runtime.strip() and "\n" not in runtime

    def test_the_inputs_are_those_of_the_model(self, lab: Lab) -> None:
        assert [spec.name for spec in self.session(lab).inputs()] == [spec.name for spec in lab.model.inputs()]

    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_run_gives_what_the_model_gives(self, lab: Lab, threads: int) -> None:
        session = self.session(lab, threads=threads)
        for batch in lab.samples:
            here, there = list(lab.model.run(batch).values()), list(session.run(batch).values())
            assert sqnr_db(here, there) >= self.run_db

    def test_two_runs_give_the_same(self, lab: Lab) -> None:
        session = self.session(lab)
        first, second = (list(session.run(lab.samples[0]).values()) for _ in range(2))
        assert sqnr_db(first, second) == math.inf

    def test_the_profile_takes_time_and_names_its_operations(self, lab: Lab) -> None:
        session = self.session(lab)
        if Can.PROFILE not in lab.card.can:
            with pytest.raises(Unsupported):
                session.profile(lab.samples[0])
            return
        times = session.profile(lab.samples[0])
        assert all(time.name and time.kind and time.latency_us >= 0 for time in times)
        assert sum(time.latency_us for time in times) > 0

    def test_layers_in_the_profile_are_layers_of_the_model(self, lab: Lab) -> None:
        if Can.PROFILE not in lab.card.can:
            pytest.skip(f"{self.method} does not declare profile")
        names = {layer.name for layer in lab.model.layers()}
        seen = {time.layer for time in self.session(lab).profile(lab.samples[0]) if time.layer}
        assert seen <= names

    def test_a_broken_artifact_is_an_error_of_ours(self, lab: Lab, tmp_path: Path) -> None:
        path = tmp_path / f"broken{lab.path.suffix}"
        path.write_bytes(b"no model")
        with pytest.raises(QmError):
            self.session(lab, path=path)

    def test_nothing_is_left_lying_about(self, lab: Lab, isolated: Isolation) -> None:
        session = self.session(lab)
        session.run(lab.samples[0])
        if Can.PROFILE in lab.card.can:
            session.profile(lab.samples[0])
        assert list(isolated.folder.iterdir()) == []

    def test_the_network_is_not_used(self, lab: Lab, isolated: Isolation) -> None:
        self.session(lab).run(lab.samples[0])
        assert isolated.connections == []
