"""The voice detector silero-vad by onnx.dynamic: recurrent layers inside control flow, its state carried along.

    pip install silero-vad && python benchmarks/silero.py

Made-up speech is run through both models; printed are the SQNR of the voice probabilities, the share of chunks on which
both decide alike, and the sizes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qm
from qm.numerics import sqnr_db

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def speech(seconds: int = 8, rate: int = 16_000) -> Array:
    """Something a voice detector takes for speech: vowels of three formants, with pauses and a little noise."""
    draw = np.random.default_rng(0)
    vowels = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
    sound = draw.standard_normal(seconds * rate) * 0.002
    start = 0.4
    while start < seconds - 0.5:
        n = int(draw.uniform(0.12, 0.35) * rate)
        time = np.arange(n) / rate
        pitch = draw.uniform(95, 230)
        vowel = vowels[draw.integers(len(vowels))]
        voice = np.zeros(n)
        for harmonic in range(1, int(4000 / pitch)):
            hertz = harmonic * pitch
            gain = sum(1 / (1 + ((hertz - f) / 90) ** 2) for f in vowel)
            voice += gain * np.sin(2 * np.pi * hertz * time + draw.uniform(0, 6))
        place = int(start * rate)
        sound[place : place + n] += 0.4 * np.hanning(n) ** 0.5 * voice / np.abs(voice).max()
        start += n / rate + draw.uniform(0, 0.08) + (draw.random() < 0.3) * draw.uniform(0.4, 1.2)
    return sound.astype(np.float32)


def probabilities(run: Run, sound: Array) -> Array:
    """Voice probabilities along the sound, the detector's state and context carried from chunk to chunk."""
    state = np.zeros((2, 1, 128), np.float32)
    found = []
    for before, now in pairwise(range(-512, len(sound) - 512, 512)):
        context = sound[None, now - 64 : now] if before >= 0 else np.zeros((1, 64), np.float32)
        chunk = np.concatenate([context, sound[None, now : now + 512]], axis=1)
        outputs = run({"input": chunk, "state": state, "sr": np.array(16_000, np.int64)})
        found.append(outputs["output"][0, 0])
        state = outputs["stateN"]
    return np.array(found)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        wheel = metadata.distribution("silero-vad")
    except metadata.PackageNotFoundError:
        print("silero-vad is not installed: pip install --no-deps silero-vad")
        return 2
    source = Path(str(wheel.locate_file("silero_vad/data/silero_vad.onnx")))
    sound = speech(20)
    for target in ("host", "x86-avx2"):
        with tempfile.TemporaryDirectory() as folder:
            report = qm.quantize(source, ["onnx.dynamic"], target=target, to=Path(folder) / "vad.onnx")
            before = probabilities(qm.load(source).run, sound)
            after = probabilities(qm.load(Path(folder) / "vad.onnx").run, sound)
        alike = ((before > 0.5) == (after > 0.5)).mean()
        print(
            f"--target {target}: {sqnr_db(before, after):.1f} dB, {alike:.1%} of {len(before)} chunks decided alike, "
            f"{report.size.before:,} to {report.size.after:,} bytes ({report.size.ratio:.2f})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
