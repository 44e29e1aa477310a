# SPDX-License-Identifier: BSD-3-Clause
"""Simulations of Keras models with classes of the user's own are saved as these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from aimetpp.keras import QuantizationSimModel

L = keras.layers


@keras.saving.register_keras_serializable("aimetpp_tests")
class Scale(L.Layer):
    """A factor per channel, times a constant."""

    def __init__(self, constant: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.constant = constant

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.factor * self.constant

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "constant": self.constant}


@keras.saving.register_keras_serializable("aimetpp_tests", "renamed")
class Net(keras.Model):
    """Two layers, by a class of the user's own."""

    def __init__(self, width: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.first, self.last = L.Dense(width, activation="relu"), L.Dense(3)

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width}


def data() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 5)).astype("float32")


def simulated(model: Any) -> Any:
    sim = QuantizationSimModel(
        model, "min_max", dummy_input=keras.ops.convert_to_tensor(data())
    )
    sim.compute_encodings(lambda m: m.predict(data(), verbose=0))
    return sim.model


def with_own_layer() -> Any:
    return keras.Sequential([keras.Input((5,)), L.Dense(4), Scale(3.0), L.Dense(2)])


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_own_layers_are_saved_under_their_registered_names(
    tmp_path: Path, name: str
) -> None:
    model = with_own_layer()
    quantized = simulated(model)
    quantized.save(tmp_path / name)
    loaded = keras.models.load_model(tmp_path / name)
    assert type(loaded.layers[1]) is Scale
    np.testing.assert_array_equal(
        loaded.predict(data(), verbose=0), model.predict(data(), verbose=0)
    )
    again = keras.Sequential.from_config(quantized.get_config())
    assert type(again.layers[1]) is Scale and again.layers[1].constant == 3.0
    # The user's own name is still the user's own class.
    assert keras.saving.get_registered_object("aimetpp_tests>Scale") is Scale


def test_own_models_are_saved_under_their_registered_names(tmp_path: Path) -> None:
    model = Net(7)
    want = model.predict(data(), verbose=0)
    simulated(model).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is Net and loaded.width == 7
    np.testing.assert_array_equal(loaded.predict(data(), verbose=0), want)


def test_what_is_not_registered_stays_so(tmp_path: Path) -> None:
    class Local(Scale):
        """Not registered."""

    model = keras.Sequential([keras.Input((5,)), Local(), L.Dense(2)])
    simulated(model).save(tmp_path / "model.keras")
    with pytest.raises(TypeError, match="Could not locate class 'Local'"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"Local": Local}
    )
    assert type(loaded.layers[0]) is Local
