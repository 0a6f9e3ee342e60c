"""A .pt2 file is read, or refused in a sentence, and nothing in it is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import qm
from qm.errors import QmError, Unsupported, UsageError
from qm.plugin import LoadJob
from qm_torch.archive import is_package, is_program
from qm_torch.load import load


def loaded(path):
    return load(LoadJob(path=path))


def rewritten(path, changes, to=None):
    """The archive with members replaced or added, by name without the top folder: a function of the old bytes."""
    to = to or path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as new:
        top = old.namelist()[0].partition("/")[0]
        pending = dict(changes)
        for info in old.infolist():
            name = info.filename.partition("/")[2]
            content = old.read(info.filename)
            new.writestr(info.filename, pending.pop(name)(content) if name in pending else content)
        for name, make in pending.items():
            new.writestr(f"{top}/{name}", make(b""))
    return to


def document(change):
    """A change of the program's own description."""

    def apply(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return {"models/model.json": apply}


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_program_is_loaded_by_its_suffix_and_content(saved):
    model = qm.load(saved)
    assert model.format == "torch"
    assert [str(s) for s in model.inputs()] == ["image float32 [?, 3, 8, 8]"]


def test_a_loaded_program_answers_as_the_one_that_was_saved(saved, small):
    batch = {"image": np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)}
    assert np.array_equal(loaded(saved).run(batch)["output_0"], small.run(batch)["output_0"])


def test_a_quantized_program_is_loaded(small, tmp_path):
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(small.program.module(), quantizer)
    prepared(torch.randn(2, 3, 8, 8))
    made = torch.export.export(convert_pt2e(prepared), (torch.zeros(2, 3, 8, 8),))
    torch.export.save(made, tmp_path / "q.pt2")
    schemes = loaded(tmp_path / "q.pt2").schemes()
    assert {name: str(s) for name, s in schemes.items()} == {"stem.0": "w8a8", "body": "w8a8", "head": "w8a8"}


def test_a_program_is_told_from_a_package_without_pytorch(saved):
    compiled = rewritten(saved, {"data/aotinductor/model/model.so": lambda _: b"\x7fELF"})
    assert is_program(saved) and not is_package(saved)
    assert is_package(compiled) and not is_program(compiled)


def test_a_compiled_package_is_refused_with_the_way_out(saved):
    compiled = rewritten(saved, {"data/aotinductor/model/model.so": lambda _: b"\x7fELF"})
    with pytest.raises(UsageError, match="is a package that AOTInductor compiled, not a program of torch.export") as e:
        loaded(compiled)
    assert "package.module:function" in e.value.hint


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pt2"])
def test_a_pickled_module_is_refused_and_nothing_of_it_runs(tmp_path, name):
    place = tmp_path / "payload"
    module = torch.nn.Linear(2, 2)
    module.payload = Payload(place)
    torch.save(module, tmp_path / name)
    with pytest.raises(UsageError, match="unpickling can run code from it") as e:
        qm.load(tmp_path / name)
    assert "-o weights=FILE" in e.value.hint
    assert not place.exists()


def test_a_bare_pickle_is_refused_and_nothing_of_it_runs(tmp_path):
    place = tmp_path / "payload"
    (tmp_path / "net.pt").write_bytes(pickle.dumps(Payload(place), protocol=2))
    with pytest.raises(UsageError, match="is a pickle of the old PyTorch format"):
        qm.load(tmp_path / "net.pt")
    assert not place.exists()


def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "net.pt")
    with pytest.raises(UsageError, match="is TorchScript, not a program of torch.export"):
        qm.load(tmp_path / "net.pt")


def payload_inputs(place):
    buffer = io.BytesIO()
    torch.save(((Payload(place),), {}), buffer)
    return {"data/sample_inputs/model.pt": lambda _: buffer.getvalue()}


def payload_weight(place):
    buffer = io.BytesIO()
    torch.save(Payload(place), buffer)

    def pickled(content):
        value = json.loads(content)
        value["config"]["head.bias"] |= {"use_pickle": True, "path_name": "weight_evil"}
        return json.dumps(value).encode()

    return {
        "data/weights/model_weights_config.json": pickled,
        "data/weights/weight_evil": lambda _: buffer.getvalue(),
    }


def payload_constant(place):
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    return {
        "data/constants/model_constants_config.json": lambda _: json.dumps({"config": {"c": entry}}).encode(),
        "data/constants/opaque_obj_0": lambda _: pickle.dumps(Payload(place)),
    }


def payload_size(place):
    def change(value):
        for meta in value["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').mkdir({str(place)!r})"

    return document(change)


def payload_guard(place):
    return document(lambda v: v.update(guards_code=[f"__import__('os').mkdir({str(place)!r}) is None"]))


def payload_target(place):
    def change(value):
        node = value["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.serialization.os.mkdir"
        node["inputs"] = [{"name": "path", "arg": {"as_string": str(place)}, "kind": 1}]

    return document(change)


def payload_name(place):
    def change(value):
        call = next(c for c in value["graph_module"]["module_call_graph"] if c["fqn"] == "")
        call["signature"]["forward_arg_names"] = [f"image=__import__('os').mkdir({str(place)!r})"]

    return document(change)


def payload_module(place):
    def change(value):
        call = next(c for c in value["graph_module"]["module_call_graph"] if c["fqn"] == "")
        spec = json.loads(call["signature"]["in_spec"])
        spec[1]["context"] = json.dumps({"__enum__": True, "fqn": "payload_module:X", "name": "x"})
        call["signature"]["in_spec"] = json.dumps(spec)

    (place.parent / "payload_module.py").write_text(f"import os\nos.mkdir({str(place)!r})\n", encoding="utf-8")
    return document(change)


PAYLOADS = {
    "sample inputs": payload_inputs,
    "a weight": payload_weight,
    "a constant": payload_constant,
    "the size of a tensor": payload_size,
    "a guard": payload_guard,
    "an operation": payload_target,
    "the name of an argument": payload_name,
    "a class of an argument": payload_module,
}


@pytest.mark.parametrize("where", sorted(PAYLOADS))
def test_a_payload_in_a_program_is_refused_and_does_not_run(saved, tmp_path, monkeypatch, where):
    monkeypatch.syspath_prepend(tmp_path)
    place = tmp_path / "payload"
    changed = rewritten(saved, PAYLOADS[where](place))
    with pytest.raises(UsageError, match="is not safe to load"):
        loaded(changed).run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert not place.exists()


@pytest.mark.parametrize("where", ["sample inputs", "a weight", "the size of a tensor", "a guard"])
def test_the_payloads_of_these_tests_do_run_where_nothing_guards(saved, tmp_path, monkeypatch, where):
    """Else the test above could not fail."""
    # PyTorch writes no guards where the path of a file that calls it holds certain names.
    monkeypatch.setattr("torch.export._unlift._ok_to_generate_guards_fn", lambda: True)
    place = tmp_path / "payload"
    changed = rewritten(saved, PAYLOADS[where](place))
    with contextlib.suppress(Exception):  # what comes of it does not matter
        torch.export.load(changed).module()(torch.zeros(2, 3, 8, 8))
    assert place.exists()


def test_the_environment_is_left_as_it_was(saved, monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    loaded(saved)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "is an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"just text", "is no zip archive"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path, content, sentence):
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        qm.load(path)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_program_cut_short_is_damaged(saved, keep):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UsageError, match="is damaged or cut short at"):
        qm.load(saved)


@pytest.mark.parametrize(
    "name", ["models/model.json", "data/weights/model_weights_config.json", "data/weights/weight_0", "archive_version"]
)
def test_damage_inside_is_one_sentence(saved, name):
    changed = rewritten(saved, {name: lambda content: content[: len(content) // 2]})
    with pytest.raises(QmError) as e:
        loaded(changed)
    assert "changed.pt2" in e.value.message and "\n" not in e.value.message and e.value.hint


def test_an_operation_that_is_not_registered_is_named(saved):
    def change(value):
        value["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.acme.magic.default"

    with pytest.raises(Unsupported, match=r"uses 'torch\.ops\.acme\.magic\.default'"):
        loaded(rewritten(saved, document(change)))


def test_a_zip_of_something_else_holds_no_program(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UsageError, match="holds no exported program"):
        qm.load(tmp_path / "net.pt2")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        loaded(tmp_path / "net.pt2")
    (tmp_path / "net.pt2").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        loaded(tmp_path / "net.pt2")


def test_a_program_keeps_its_name_after_it_was_moved(saved, tmp_path):
    moved = Path(shutil.move(saved, tmp_path / "other.pt2"))
    assert [layer.name for layer in loaded(moved).layers()] == ["stem.0", "body", "head"]


def test_programs_with_branches_and_free_lengths_of_their_own_are_safe_to_load(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x, y):
            halves = torch.cat([x[: x.shape[0] // 2], y]).reshape(-1)
            chosen = torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a * 2, (x,))
            return halves, chosen.nonzero(), torch.einsum("ij,kj->ik", x, x)

    half, other = torch.export.Dim("half"), torch.export.Dim("other")
    shapes = ({0: 2 * half}, {0: other})
    made = torch.export.export(Net(), (torch.ones(6, 4), torch.ones(3, 4)), dynamic_shapes=shapes)
    torch.export.save(made, tmp_path / "net.pt2")
    model = loaded(tmp_path / "net.pt2")
    answers = model.run({"x": np.ones((4, 4), np.float32), "y": np.ones((5, 4), np.float32)})
    assert [a.shape for a in answers.values()] == [(28,), (16, 2), (4, 4)]
