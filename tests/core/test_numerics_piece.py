"""Large arrays in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from qm.numerics import pieces


@pytest.mark.parametrize("most", [0, 1, 3, 5, 7, 40, 1000])
@pytest.mark.parametrize("shape", [(2, 3, 5), (7,), (1, 9), (4, 1)])
def test_pieces_cover_an_array_once_in_the_order_of_its_memory(shape: tuple[int, ...], most: int) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    parts = [x[place] for place in pieces(shape, most)]
    assert np.array_equal(np.concatenate([part.reshape(-1) for part in parts]), x.reshape(-1))
    assert max(part.size for part in parts) <= max(1, most)


def test_an_array_without_elements_has_no_pieces() -> None:
    assert not list(pieces((3, 0), 5))
