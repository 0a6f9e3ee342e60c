"""Is torch.qat worth its training? w4a8 of a small CIFAR-10 network, as compiled packages run it.

    python benchmarks/torch_qat.py [--weights cnn.safetensors] [--epochs 6] [--samples 8000] [--extra 4]

A network of 5 convolutions (86,536 weights) is trained on 20,000 images, or read from ``--weights`` where that file is
there, and then quantized to w4a8 by torch.ptq (512 images), and by torch.qat, which learns the float network's answers
to ``--samples`` training images in ``--extra`` epochs and sees no label. The control is the float network trained for
as many epochs more on the same images, with their labels, and that network by torch.ptq: what more training alone
brings.

All are judged on the 5,000 test images, float and quantized as .pt2 packages. Differences are paired, with their 95 %
intervals; the last line says whether torch.qat is better than torch.ptq beyond doubt. The data are those of QM_DATA.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sound import shared
from torch import nn
from torch.nn import functional
from torch_artifact import opened, written

import qm.target
from qm.plugin import Plan, QuantizeJob, Scheme
from qm.verdict import mcnemar, paired_difference
from qm_torch import ptq, qat
from qm_torch.model import TorchModel
from qm_torch.option import PtqOptions, QatOptions

BATCH = 250


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    widths = ((3, 24, 2), (24, 32, 1), (32, 48, 2), (48, 64, 1), (64, 64, 2))
    return nn.Sequential(*(block(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def trained(net: nn.Module, images: Any, labels: Any, epochs: int, rate: float, name: str) -> nn.Module:
    """Trained on labels, with flips and shifts by up to 2 pixels, the learning rate along a cosine."""
    steps = epochs * (len(images) // 128)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(1)
    net.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(128)[: len(images) // 128]:
            batch = images[chosen]
            if torch.rand(1, generator=generator) < 0.5:
                batch = batch.flip(3)
            down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
            loss = functional.cross_entropy(net(batch.roll((down, right), (2, 3))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"{name}, epoch {epoch + 1} of {epochs}: loss {total / (len(images) // 128):.3f}", flush=True)
    return net.eval()


class Rows:
    """Images as samples of the model's only input, without labels."""

    labels = None

    def __init__(self, images: Any) -> None:
        self.images = images.numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Any:
        return ({"input": image[None]} for image in self.images)


def program(net: nn.Module) -> TorchModel:
    batch = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        return TorchModel(torch.export.export(net, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=batch), name="cnn")


def quantized(method: Any, model: TorchModel, images: Any, options: Any) -> TorchModel:
    scheme = Scheme.parse("w4a8")
    plan = Plan({layer.name: scheme for layer in model.layers()})
    job = QuantizeJob(model=model, plan=plan, data=Rows(images), target=qm.target.find("host"), options=options)
    made: TorchModel = method.quantize(job)
    for note in job.notes:
        print(f"    {note}")
    return made


def judged(model: TorchModel, path: Path, images: Any, labels: Any) -> tuple[int, Any]:
    """Bytes of the package, and which of the images it gets right."""
    session = opened(written(model, path))
    made = [next(iter(session.run({"input": part.numpy()}).values())) for part in images.split(BATCH)]
    return path.stat().st_size, np.concatenate(made).argmax(1) == labels.numpy()


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    with np.load(shared() / "data/cifar10.npz") as data:
        images, test = (torch.from_numpy(data[k]).permute(0, 3, 1, 2).float() / 128 - 1 for k in ("x_train", "x_test"))
        labels, truth = (torch.from_numpy(data[k].astype(np.int64)) for k in ("y_train", "y_test"))
    images = images.contiguous()
    test = test.contiguous()
    net = network()
    if options.weights is not None and options.weights.exists():
        net.load_state_dict(load_file(options.weights))
        net.eval()
    else:
        trained(net, images, labels, options.epochs, 4e-3, "float")
        if options.weights is not None:
            save_file(net.state_dict(), options.weights)
    few, control = options.samples, copy.deepcopy(net)
    trained(control, images[:few], labels[:few], options.extra, 1e-3, "control")
    start = time.perf_counter()
    learns = QatOptions(epochs=options.extra, learning_rate=1e-3)
    models = {
        "float": program(net),
        "float, trained on (control)": program(control),
        "torch.ptq w4a8": quantized(ptq, program(net), images[:512], PtqOptions()),
        "torch.ptq w4a8 of the control": quantized(ptq, program(control), images[:512], PtqOptions()),
        "torch.qat w4a8": quantized(qat, program(net), images[:few], learns),
    }
    print(f"quantized in {time.perf_counter() - start:.0f} s")
    with tempfile.TemporaryDirectory() as folder:
        made = {n: judged(m, Path(folder) / f"{i}.pt2", test, truth) for i, (n, m) in enumerate(models.items())}
    base = made["torch.ptq w4a8"][1]
    print(f"\n{'':32}{'bytes':>9}  top-1    against torch.ptq w4a8, points")
    for name, (nbytes, right) in made.items():
        found = paired_difference(int((base & ~right).sum()), int((right & ~base).sum()), len(right))
        gap = f"{100 * found.estimate:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
        print(f"{name:32}{nbytes:9,}  {right.mean():.2%}  {gap}")
    best = made["torch.qat w4a8"][1]
    lost, gained = int((base & ~best).sum()), int((best & ~base).sum())
    found = paired_difference(lost, gained, len(best))
    word = "better" if found.low > 0 else "not better beyond doubt"
    print(f"torch.qat against torch.ptq: {word}; {lost} lost, {gained} gained, McNemar p = {mcnemar(lost, gained):.2g}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path, help="a .safetensors file of the trained network, written where absent")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the float network")
    parser.add_argument("--samples", type=int, default=8000, help="training images that torch.qat learns from")
    parser.add_argument("--extra", type=int, default=4, help="epochs of torch.qat and of the control")
    parser.add_argument("--threads", type=int, default=1, help="threads; more than are free make it slower by far")
    return parser.parse_args()


if __name__ == "__main__":
    main()
