"""PP-OCR's text recogniser by onnx.ptq: an old opset, depthwise convolutions, attention and CTC.

    pip install rapidocr-onnxruntime && python benchmarks/ocr.py

Lines of text are drawn with Pillow's own font; some calibrate, others judge: the SQNR of the outputs, and the share of
lines and characters that are read as float reads them.
"""

from __future__ import annotations

import argparse
import difflib
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from interleave import session, speedups
from PIL import Image, ImageDraw, ImageFont

import qm.target
from qm.numerics import sqnr_db
from qm.plugin import Batch, LoadJob, Notes, Plan, QuantizeJob, Scheme

WORDS = [
    "invoice",
    "total",
    "amount",
    "due",
    "2024",
    "street",
    "number",
    "phone",
    "customer",
    "order",
    "Receipt",
    "date",
    "Tax",
    "19%",
    "subtotal",
    "EUR",
    "1,234.56",
    "paid",
    "thank",
    "you",
    "for",
    "visiting",
    "our",
    "shop",
    "Table",
    "12",
    "Coffee",
    "3.80",
    "Espresso",
    "2.40",
    "Water",
    "still",
    "sparkling",
    "bread",
    "salad",
    "soup",
    "Monday",
    "Tuesday",
    "open",
    "9:00-18:00",
    "closed",
    "Attention",
    "fragile",
    "keep",
    "dry",
    "Lot",
    "A-4471",
    "serial",
    "No.",
    "88213-B",
    "weight",
    "12.5",
    "kg",
    "made",
    "in",
    "Platform",
    "Gate",
    "7",
    "departure",
    "arrival",
    "flight",
    "LH2043",
    "seat",
    "21C",
    "passport",
    "name",
    "signature",
    "page",
    "of",
    "chapter",
    "figure",
    "Table",
]


class Lines:
    """Drawn lines of text, as the recogniser wants them: float32 [1, 3, 48, width], -1..1."""

    labels = None

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.texts = [" ".join(random.choice(WORDS, random.integers(2, 6))) for _ in range(count)]
        self.sizes = random.integers(32, 42, count)
        self.shades = random.integers(0, 60, (count, 2))

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[Batch]:
        for text, size, (ink, paper) in zip(self.texts, self.sizes, self.shades, strict=True):
            yield {"x": line(text, int(size), int(ink), 255 - int(paper))}


def line(text: str, size: int, ink: int, paper: int) -> np.ndarray:
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("RGB", (int(right - left) + 8, 48), (paper,) * 3)
    place = (4 - left, (48 - (bottom - top)) / 2 - top)
    ImageDraw.Draw(picture).text(place, text, font=font, fill=(ink,) * 3)
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255
    return ((pixels - 0.5) / 0.5)[None]


def recogniser() -> Path | None:
    """The model in the installed distribution, None where it is not installed."""
    try:
        files = metadata.files("rapidocr-onnxruntime") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.name.endswith("rec_infer.onnx")), None)


def characters(path: Path) -> list[str]:
    """What the classes of the model's output stand for, the first for nothing."""
    stored = next(p.value for p in onnx.load(path).metadata_props if p.key == "character")
    return ["", *stored.splitlines(), " "]


def decode(scores: np.ndarray, known: list[str]) -> str:
    """The best path of a CTC output ``(steps, characters)``: repeats merged, blanks (0) and outer spaces dropped."""
    best = scores.argmax(axis=-1)
    kept = [int(i) for i, before in zip(best, [0, *best[:-1]], strict=True) if i and i != before]
    return "".join(known[i] for i in kept).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="PP-OCR's recogniser by onnx.ptq, compared with float.")
    parser.add_argument("--target", default="host")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    path = recogniser()
    if path is None:
        print("skipped: the distribution rapidocr-onnxruntime, which holds the model, is not installed")
        return 0
    from qm_onnx.load import load
    from qm_onnx.option import PtqOptions
    from qm_onnx.ptq import quantize

    model = load(LoadJob(path=path))
    kinds = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
    plan = Plan({layer.name: Scheme.parse("w8a8") for layer in model.layers() if layer.kind in kinds})
    options = PtqOptions(**dict(o.split("=", 1) for o in args.option))
    notes = Notes()
    job = QuantizeJob(
        model=model,
        plan=plan,
        data=Lines(args.samples, 1),
        target=qm.target.find(args.target),
        options=options,
        notes=notes,
    )
    quantized = quantize(job)
    print("\n".join(notes))
    report(path, model.native, quantized.native, args.lines)
    return 0


def report(path: Path, before: onnx.ModelProto, after: onnx.ModelProto, count: int) -> None:
    known = characters(path)
    test = Lines(count, 2)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("float.onnx", "int8.onnx")]
        for file, proto in zip(files, (before, after), strict=True):
            onnx.save(proto, file)
        sessions = [session(f) for f in files]
        sizes = [f.stat().st_size for f in files]
        outputs = [[s.run(None, dict(b))[0][0] for b in test] for s in sessions]
        ratio, low, high = speedups(sessions, [b for b, _ in zip(test, range(8), strict=False)])[1]
    read = [[decode(o, known) for o in each] for each in outputs]
    same = np.mean([a == b for a, b in zip(*read, strict=True)])
    alike = np.mean([difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in zip(*read, strict=True)])
    true = [np.mean([r == t for r, t in zip(each, test.texts, strict=True)]) for each in read]
    flat = [np.concatenate([o.ravel() for o in each]) for each in outputs]
    print(f"SQNR of the probabilities {sqnr_db(*flat):.1f} dB, lines read as float reads them {same:.1%} of {count}, ")
    print(f"characters alike {alike:.2%}; lines read right: float {true[0]:.1%}, int8 {true[1]:.1%}")
    print(
        f"size {sizes[0]:,} to {sizes[1]:,} bytes ({sizes[1] / sizes[0]:.3f}), "
        f"speed {ratio:.2f} times float ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
