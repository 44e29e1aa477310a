# SPDX-License-Identifier: BSD-3-Clause
"""Which batch norms of Keras models fold: by the axis that they normalize."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from test_keras import random_weights

from aimetpp.keras.batch_norm_fold import fold_all_batch_norms

L = keras.layers
FIRST = "channels_first"


@pytest.mark.parametrize(
    ("shape", "layers", "folds"),
    [
        ((6, 6, 3), lambda: [L.Conv2D(4, 3), L.BatchNormalization()], True),
        ((6, 6, 3), lambda: [L.Conv2D(4, 3), L.BatchNormalization(axis=3)], True),
        ((6, 6, 3), lambda: [L.Conv2D(4, 3), L.BatchNormalization(axis=1)], False),
        ((6, 6, 3), lambda: [L.Conv2D(5, 3), L.BatchNormalization(axis=1)], False),
        ((3, 3, 3), lambda: [L.BatchNormalization(), L.Conv2D(4, 3)], True),
        ((3, 3, 3), lambda: [L.BatchNormalization(axis=1), L.Conv2D(4, 3)], False),
        (
            (3, 6, 6),
            lambda: [L.Conv2D(4, 3, data_format=FIRST), L.BatchNormalization(axis=1)],
            True,
        ),
        (
            (3, 6, 6),
            lambda: [L.BatchNormalization(axis=1), L.Conv2D(4, 3, data_format=FIRST)],
            True,
        ),
        (
            (3, 6, 6),
            lambda: [L.Conv2D(4, 3, data_format=FIRST), L.BatchNormalization()],
            False,
        ),
        ((4,), lambda: [L.Dense(4), L.BatchNormalization()], True),
        ((4, 3), lambda: [L.Dense(4), L.BatchNormalization(axis=1)], False),
    ],
)
def test_only_the_channels_of_a_layer_are_folded_into_it(
    shape: tuple[int, ...], layers: Any, folds: bool
) -> None:
    model = keras.Sequential([keras.Input(shape), *layers(), L.Flatten()])
    random_weights(model)
    pairs, folded = fold_all_batch_norms(model)
    assert len(pairs) == int(folds)
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    want = model.predict(x, verbose=0)
    np.testing.assert_allclose(folded.predict(x, verbose=0), want, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_seen_op_by_op_takes_no_batch_norm() -> None:
    class Own(L.Dense):
        """As Dense."""

    model = keras.Sequential([keras.Input((4,)), Own(3), L.BatchNormalization()])
    random_weights(model)
    pairs, folded = fold_all_batch_norms(model)
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    assert pairs == []
    np.testing.assert_allclose(
        folded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
