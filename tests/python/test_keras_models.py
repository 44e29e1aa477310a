# SPDX-License-Identifier: BSD-3-Clause
"""Keras models of other kinds: several inputs, noise, half precision, subclassed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx_running import run
from test_keras import random_weights

from aimetpp.keras import QuantizationSimModel
from aimetpp.keras.batch_norm_fold import fold_all_batch_norms
from aimetpp.mixed_precision import auto_mixed_precision
from aimetpp.mixed_precision.auto import L2Target

L = keras.layers


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_several_inputs_and_outputs_are_exported(tmp_path: Path) -> None:
    left, right = keras.Input((8,)), keras.Input((6,))
    parts = [L.Dense(5, activation="relu")(left), L.Dense(5, activation="gelu")(right)]
    both = L.Concatenate()(parts)
    outputs = [L.Dense(3)(both), L.Dense(2, activation="softmax")(both)]
    model = random_weights(keras.Model([left, right], outputs))
    sim = QuantizationSimModel(model, "min_max")
    x = [images(4, 8), images(4, 6)]
    sim.compute_encodings(lambda m: m.predict(x, verbose=0))
    sim.export(tmp_path, "model")
    one = [part[:1] for part in x]
    exported = onnx.load(tmp_path / "model.onnx")
    names = [value.name for value in exported.graph.input]
    got = run(exported, dict(zip(names, one, strict=True)))
    want = sim.model.predict(one, verbose=0)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert type(sim.model).__call__ is type(model).__call__


def test_noise_is_computed_in_training_alone() -> None:
    """Its ops are none that the trace has seen, and nothing to quantize."""
    x = keras.Input((8, 8, 3))
    y = L.SpatialDropout2D(0.3)(L.Conv2D(6, 3)(x))
    y = L.Flatten()(L.GaussianNoise(0.1)(y))
    y = L.Dropout(0.5, noise_shape=(None, 1))(y)
    y = L.AlphaDropout(0.2)(L.Dense(8, activation="relu")(y))
    model = keras.Model(x, L.Dense(4)(L.GaussianDropout(0.2)(y)))
    sim = QuantizationSimModel(model, "min_max")
    data = images(6, 8, 8, 3)
    with sim.quantizers_off():
        np.testing.assert_array_equal(
            sim.model.predict(data, verbose=0), model.predict(data, verbose=0)
        )
    sim.compute_encodings(lambda m: m.predict(data, verbose=0))
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    assert sum("core.weight" in name for name in on) == 3 and len(on) == 7
    before = [w.copy() for w in sim.model.get_weights()]
    sim.model.compile("sgd", "mse")
    sim.model.fit(data, np.zeros((6, 4)), verbose=0)
    pairs = zip(before, sim.model.get_weights(), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_layers_in_half_precision_are_seen_op_by_op() -> None:
    x = keras.Input((8,))
    y = L.Dense(8, activation="relu", dtype="mixed_float16")(x)
    model = random_weights(keras.Model(x, L.Dense(2)(y)))
    sim = QuantizationSimModel(model, "min_max")
    data = images(6, 8)
    with sim.quantizers_off():
        np.testing.assert_array_equal(
            sim.model.predict(data, verbose=0), model.predict(data, verbose=0)
        )
    sim.compute_encodings(lambda m: m.predict(data, verbose=0))
    assert sim.is_calibrated()
    names = [site.name for site in sim.sites() if site.quantizer is not None]
    assert any("matmul" in name for name in names)


def test_auto_mixed_precision_takes_arrays() -> None:
    """FP32, FP16 and INT8 by layer, with the data as Keras has it."""
    x = keras.Input((8, 8, 3))
    y = L.Flatten()(L.Conv2D(6, 3, activation="relu")(x))
    model = random_weights(keras.Model(x, L.Dense(4)(L.Dense(8, activation="tanh")(y))))
    sim = QuantizationSimModel(model, "min_max")
    data = images(32, 8, 8, 3)
    sim.compute_encodings(lambda m: m.predict(data, verbose=0))
    found = auto_mixed_precision(
        sim,
        "fp32",
        ["fp16", "int8"],
        target=L2Target(0.02, [data], num_samples=None),
        skip_breaking=True,
        progress=False,
    )
    assert {"fp16", "int8"} <= set(sim.precisions())
    assert len(found.narrowed) > 1
    got, want = (m.predict(data, verbose=0) for m in (sim.model, model))
    distance = np.linalg.norm(got - want, axis=1).mean()
    assert 0 < distance <= 0.02
    assert -found.final_score == pytest.approx(distance, rel=1e-3)


def test_layer_norms_are_pytorchs() -> None:
    x = keras.Input((5, 8))
    model = random_weights(keras.Model(x, L.LayerNormalization(epsilon=0.1)(x)))
    sim = QuantizationSimModel(model, "min_max")
    data = images(6, 5, 8)
    with sim.quantizers_off():
        np.testing.assert_allclose(
            sim.model.predict(data, verbose=0),
            model.predict(data, verbose=0),
            rtol=1e-5,
            atol=1e-6,
        )
    params = {s.name: s.quantizer is not None for s in sim.sites() if s.kind == "param"}
    assert {name.rpartition(".")[2]: on for name, on in params.items()} == {
        "weight": True,
        "bias": False,
    }


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


def test_an_embedding_reads_an_input_of_the_default_dtype() -> None:
    layers = [
        L.Embedding(20, 8, name="embedding"),
        L.GlobalAveragePooling1D(),
        L.Dense(3),
    ]
    model = random_weights(keras.Sequential([keras.Input((6,)), *layers]))
    x = np.random.default_rng(0).integers(0, 20, (4, 6))
    assert fold_all_batch_norms(model)[0] == []
    sim = QuantizationSimModel(model, "min_max")
    with sim.quantizers_off():
        np.testing.assert_array_equal(
            sim.model.predict(x, verbose=0), model.predict(x, verbose=0)
        )
    # Indices are not quantized.
    assert [s.name for s in sim.sites() if s.quantizer][0] == "embedding.core.weight"


def two_inputs() -> Any:
    left, right = keras.Input((8, 8, 3), name="img"), keras.Input((4,), name="vec")
    y = L.GlobalAveragePooling2D()(L.SeparableConv2D(6, 3)(left))
    both = L.Concatenate()([y, L.Dense(5, activation="relu")(right)])
    return random_weights(keras.Model([left, right], L.Dense(2)(both)))


def test_an_exported_model_has_the_inputs_names_and_any_batch(tmp_path: Path) -> None:
    model = two_inputs()
    sim = QuantizationSimModel(model, "min_max")
    x = [images(6, 8, 8, 3), images(6, 4)]
    sim.compute_encodings(lambda m: m.predict(x, verbose=0))
    sim.export(tmp_path, "model")
    exported = onnx.load(tmp_path / "model.onnx")
    for size in (1, 6):
        feeds = {"img": x[0][:size], "vec": x[1][:size]}
        want = sim.model.predict(list(feeds.values()), verbose=0)
        np.testing.assert_allclose(run(exported, feeds)[0], want, atol=1e-6)
    other = QuantizationSimModel(model, "min_max")
    other.load_encodings(tmp_path / "model.encodings")
    np.testing.assert_array_equal(
        other.model.predict(x, verbose=0), sim.model.predict(x, verbose=0)
    )
    sim.export(tmp_path, "own", input_names=["a", "b"])
    names = [value.name for value in onnx.load(tmp_path / "own.onnx").graph.input]
    assert names == ["a", "b"]


@pytest.mark.parametrize("kind", [list, tuple, "names", "tensors"])
def test_example_inputs_are_given_as_to_the_model(kind: Any) -> None:
    one = [images(1, 8, 8, 3).astype("float64"), images(1, 4)]
    dummy: Any = dict(zip(("img", "vec"), one, strict=True))
    if kind == "tensors":
        dummy = ([torch.tensor(part).float() for part in one],)
    elif kind != "names":
        dummy = kind(one)
    sim = QuantizationSimModel(two_inputs(), "min_max", dummy_input=dummy)
    want = QuantizationSimModel(two_inputs(), "min_max")
    assert len(sim.sites()) == len(want.sites())
    sim.compute_encodings(lambda m: m.predict(one, verbose=0))
    assert not sim.uncalibrated()


def test_a_lambda_of_a_python_function_is_simulated_in_place() -> None:
    def model() -> Any:
        double = L.Lambda(lambda z: z * 2)
        return keras.Sequential([keras.Input((4,)), double, L.Dense(2)])

    with pytest.raises(ValueError, match="made again from their configs; use in_place"):
        QuantizationSimModel(model())
    sim = QuantizationSimModel(model(), in_place=True)
    sim.compute_encodings(lambda m: m.predict(images(4, 4), verbose=0))
    assert sim.model.predict(images(4, 4), verbose=0).shape == (4, 2)
