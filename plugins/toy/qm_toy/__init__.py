"""The toy framework: a small perceptron in NumPy, its file format and its methods."""

from qm_toy.sample import make, make_data

__all__ = ["make", "make_data"]
