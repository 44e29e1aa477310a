# SPDX-License-Identifier: BSD-3-Clause
"""Subclassed Keras models, which are copied by their config."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from test_keras import random_weights

from aimetpp.keras import QuantizationSimModel

L = keras.layers


class Blocks(keras.Model):
    def __init__(self, units: int = 3, make: Any = None) -> None:
        super().__init__()
        self.units = units
        self.conv, self.norm = L.Conv2D(units, 3), L.BatchNormalization()
        self.blocks = [L.Dense(4, activation="relu"), L.Dense(2)]
        self.factor = 1.0 if make is None else make()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

    def call(self, inputs: Any, training: Any = None) -> Any:
        y = self.norm(self.conv(inputs), training=training)
        y = keras.ops.mean(keras.ops.relu(y), axis=(1, 2)) * self.factor
        for block in self.blocks:
            y = block(y)
        return y


class Misdescribed(Blocks):
    def get_config(self) -> dict[str, Any]:
        return {"units": self.units + 1}


class Wrong(Blocks):
    def get_config(self) -> dict[str, Any]:
        return {"unit": self.units}


def test_a_subclassed_model_is_copied_by_its_config() -> None:
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    model = Blocks(5)
    model(x)
    random_weights(model).compile("adam", "mse")
    model.conv.trainable = False
    expected = model.predict(x, verbose=0)
    sim = QuantizationSimModel(model, "min_max", dummy_input=torch.tensor(x[:1]))
    assert sim.model is not model and isinstance(sim.model, Blocks)
    assert not sim.model.conv.trainable
    sim.compute_encodings(lambda m: m.predict(x, verbose=0))
    assert {"conv.core.weight", "/relu_0"} <= {
        s.name for s in sim.sites() if s.quantizer
    }
    assert 0 < np.abs(sim.model.predict(x, verbose=0) - expected).max()
    for quantized in (sim, sim.model):
        original = QuantizationSimModel.get_original_model(quantized)
        assert type(original) is Blocks
        got = original.predict(x, verbose=0)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    sim.model.fit(x, np.zeros((6, 2)), verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Misdescribed, "constructs has other weights"),
        (Wrong, "constructed again from its config"),
        (lambda: Blocks(3, lambda: 2.0), "computes something else"),
    ],
)
def test_a_config_that_does_not_describe_the_model(model: Any, message: str) -> None:
    x = np.ones((1, 8, 8, 3), "float32")
    built = model()
    built(x)
    random_weights(built)
    with pytest.raises(ValueError, match=f"{message}; give .* a get_config that has"):
        QuantizationSimModel(built, dummy_input=torch.tensor(x))
    QuantizationSimModel(built, dummy_input=torch.tensor(x), in_place=True)
