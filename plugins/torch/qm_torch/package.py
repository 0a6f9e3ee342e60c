"""Compiling a program to machine code: a .pt2 package by AOTInductor, for the CPU of this machine."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # Registers the operations of quantized programs.

from qm.plugin import Artifact, ExportJob, PluginError
from qm_torch import description, onednn, process, unpacking
from qm_torch.compiler import check_compiler
from qm_torch.manifest import KEY

MODULE = "qm_torch.package"
EPOCH = (1980, 1, 1, 0, 0, 0)

CONFIG: dict[str, Any] = {
    # Without it weights stay as they are, and integer kernels are not used.
    "freezing": True,
    # What follows keeps the file small, and the same at every time.
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.enable_frame_pointer": False,
    "aot_inductor.precompile_headers": False,
    "aot_inductor.model_name_for_generated_files": "network",
    "size_asserts": False,
    "alignment_asserts": False,
}

_BUILD_ID = re.compile(rb"(\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0).{20}", re.DOTALL)


def export(job: ExportJob) -> Artifact:
    """Compile the model to ``job.path``.

    Raises:
        NotReady: there is no C++ compiler.
        PluginError: the compiler failed, or its process died.
    """
    model = description.torch_model(job)
    check_compiler()
    told = description.manifest(model, isa=description.isa()).text()
    with process.workshop() as folder:
        torch.export.save(model.program, folder / "program.pt2")
        made = process.run(MODULE, {"manifest": told}, what=f"compiling {model.name!r}", folder=folder)
        _pack(Path(made["package"]), job.path, folder)
    return Artifact(path=job.path, format="aoti")


def _pack(made: Path, path: Path, folder: Path) -> None:
    """Keep what runs: the library and what is said of it, not the sources, nor the paths of this machine."""
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name, content in _kept(source):
            if name.endswith(".so"):
                # The linker's id is a hash of what holds those paths.
                content = content.replace(bytes(folder), b"." * len(bytes(folder)))
                content = _BUILD_ID.sub(lambda found: found[1] + bytes(20), content)
            target.writestr(zipfile.ZipInfo(f"package/{name.partition('/')[2]}", EPOCH), content)


def _kept(source: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for name in source.namelist():
        if not name.endswith((".cpp", ".kernel_metadata.json", "serialization_id")):
            yield name, source.read(name)


def work(job: process.Job, emit: process.Emit) -> process.Job:
    """Compile the program that lies in the current folder."""
    from torch._inductor import aoti_compile_and_package

    torch.set_num_threads(1)
    program = unpacking.prepared(onednn.prepared(torch.export.load("program.pt2")))
    config = {**CONFIG, "aot_inductor.metadata": {KEY: job["manifest"]}}
    if unpacking.is_packed(program):
        config |= unpacking.settings()
    with torch.no_grad():
        made = aoti_compile_and_package(
            program, package_path=str(Path("package.pt2").resolve()), inductor_configs=config
        )
    if not made:
        raise PluginError("torch", "AOTInductor made no package")
    return {"package": str(made)}


if __name__ == "__main__":
    process.serve(work)
