"""Train a LeNet on MNIST and write it as ``models/mnist.h5``, with the images that quantization takes beside it.

Needs the extra ``[tf]``. Run from the root of the repository: ``python examples/mnist/train.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEED = 7
KEPT = 10_000
"""Training images that go along for calibration and quantization-aware training."""
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--from", dest="source", type=Path, help="mnist.npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--to", type=Path, default=Path("models"), help="folder for mnist.h5 and mnist.npz (models)")
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    source = args.source or found()
    if source is None or not source.is_file():
        sys.exit(
            f"error: there is no MNIST at {str(source or candidates()[-1])!r}\n"
            "hint:  Give --from mnist.npz; Keras fetches it: python -c 'import keras; keras.datasets.mnist.load_data()'"
        )
    train(source, args.to, epochs=args.epochs)


def candidates() -> list[Path]:
    """Where MNIST may lie: where QM_DATA says, beside the repository, where Keras keeps it."""
    places = [Path(os.environ["QM_DATA"]) / "data"] if os.environ.get("QM_DATA") else []
    return [p / "mnist.npz" for p in (*places, ROOT.parent / "shared" / "data", Path.home() / ".keras" / "datasets")]


def found() -> Path | None:
    """The first that is there."""
    return next((place for place in candidates() if place.is_file()), None)


def train(source: Path, folder: Path, *, epochs: int) -> None:
    """Train on the 60,000 training images; the 10,000 test images are only looked at in the end."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import absl.logging
    import keras
    import numpy as np

    absl.logging.set_verbosity("error")  # Keras calls .h5 legacy at each save.
    with np.load(source) as file:
        x_train, y_train, x_test, y_test = (file[name] for name in ARRAYS)
    keras.utils.set_random_seed(SEED)
    net = network(keras)
    steps = epochs * -(-len(x_train) // 128)
    net.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    net.fit(x_train.astype("float32"), y_train, batch_size=128, epochs=epochs, verbose=2)
    answers = net.predict(x_test.astype("float32"), batch_size=500, verbose=0).argmax(1)
    wrong = int((answers != y_test).sum())
    print(f"accuracy on the {len(x_test):,} test images: {1 - wrong / len(x_test):.2%} ({wrong} wrong)")

    folder.mkdir(parents=True, exist_ok=True)
    model, data = folder / "mnist.h5", folder / "mnist.npz"
    net.save(model, include_optimizer=False)
    kept = np.sort(np.random.default_rng(SEED).permutation(len(x_train))[:KEPT])
    np.savez_compressed(data, x_train=x_train[kept], y_train=y_train[kept], x_test=x_test, y_test=y_test)
    for path in (model, data):
        print(f"{path}: {path.stat().st_size:,} bytes")


def network(keras):
    """LeNet with ReLU and max pooling, 431,080 weights. It takes raw pixels 0..255, ``[N, 28, 28]``.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II; as many channels
    as Caffe's LeNet has.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28), name="image"),
            layers.Reshape((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(500, activation="relu", name="dense1"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax", name="answer"),
        ],
        name="lenet",
    )


if __name__ == "__main__":
    main()
