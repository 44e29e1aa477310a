# SPDX-License-Identifier: BSD-3-Clause
"""Keras models on Keras's PyTorch backend, from folding to export."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from aimetpp.common.defs import CallbackFunc, QuantizationDataType
from aimetpp.keras import (
    QuantizationSimModel,
    choose_fast_mixed_precision,
    choose_mixed_precision,
    fold_all_batch_norms,
)
from aimetpp.keras.amp.quantizer_groups import (
    QuantizerGroup,
    find_quantizer_group,
)

L = keras.layers
INT = QuantizationDataType.int
# Such small tensors are faster without threads.
torch.set_num_threads(1)
CANDIDATES = [((16, INT), (16, INT)), ((8, INT), (8, INT)), ((4, INT), (4, INT))]


def random_weights(model: Any, seed: int = 0) -> Any:
    """Weights and statistics that no layer begins with; variances stay positive."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            0.5 * rng.random(w.shape) + 0.1 * rng.normal(size=w.shape) ** 2 + 0.1
            if w.ndim == 1
            else rng.normal(size=w.shape) / w.size**0.3
            for w in model.get_weights()
        ]
    )
    return model


def data(model: Any, count: int = 3) -> Any:
    rng = np.random.default_rng(1)
    shape = (count, *model.input_shape[1:])
    if "int" in model.inputs[0].dtype:
        return rng.integers(0, 5, shape).astype("int32")
    return rng.normal(size=shape).astype("float32")


def sequential(shape: tuple[int, ...], *layers: Any, dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def residual() -> Any:
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    shared = L.Conv2D(4, 1)
    y = shared(shared(x)) + x
    y = L.Concatenate()([L.Add()([x, y]), x])
    inner = sequential((6, 6, 8), L.DepthwiseConv2D(3), L.ReLU(6.0))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(inner(y))))


MODELS: dict[str, Callable[[], Any]] = {
    "conv": lambda: sequential((7, 9, 2), L.Conv2D(4, 3), L.Conv2D(2, (3, 1))),
    "same": lambda: sequential(
        (7, 8, 2),
        L.Conv2D(4, 4, strides=2, padding="same", use_bias=False),
        L.Conv2D(4, 2, padding="same"),
    ),
    "dilated": lambda: sequential(
        (9, 9, 4), L.Conv2D(4, 3, dilation_rate=2, padding="same", groups=2)
    ),
    "first": lambda: sequential(
        (2, 7, 7),
        L.Conv2D(4, 3, strides=2, padding="same", data_format="channels_first"),
    ),
    "causal": lambda: sequential(
        (9, 2), L.Conv1D(4, 3, padding="causal", dilation_rate=2), L.Conv1D(3, 2)
    ),
    "volume": lambda: sequential((5, 5, 5, 1), L.Conv3D(2, 3, padding="same")),
    "depthwise": lambda: sequential(
        (7, 7, 3),
        L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2),
        L.BatchNormalization(),
    ),
    "depthwise1d": lambda: sequential((8, 3), L.DepthwiseConv1D(3)),
    "separable": lambda: sequential((7, 7, 3), L.SeparableConv2D(4, 3)),
    "transposed": lambda: sequential((5, 5, 2), L.Conv2DTranspose(3, 3, strides=2)),
    "norms": lambda: sequential(
        (4, 4, 3),
        L.BatchNormalization(scale=False),
        L.BatchNormalization(axis=1, center=False),
        L.LayerNormalization(),
        L.Flatten(),
        L.BatchNormalization(),
    ),
    "dense": lambda: sequential(
        (5, 4), L.Dense(6, activation="gelu"), L.Dense(3, activation="softmax")
    ),
    "activations": lambda: sequential(
        (8,),
        *(L.Activation(name) for name in ("elu", "selu", "silu", "sigmoid", "tanh")),
        L.Dense(5, activation="hard_sigmoid"),
        L.ReLU(max_value=1.5, negative_slope=0.1),
        L.LeakyReLU(),
        L.Softmax(),
    ),
    "pools": lambda: sequential(
        (8, 8, 2),
        L.Conv2D(4, 3, activation="relu6"),
        L.MaxPooling2D(),
        L.ZeroPadding2D(),
        L.AveragePooling2D(2),
        L.Dropout(0.5),
        L.GlobalAveragePooling2D(),
    ),
    "words": lambda: sequential(
        (4,), L.Embedding(5, 6), L.LSTM(3), L.Dense(2), dtype="int32"
    ),
    "residual": residual,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_computes_what_keras_does(name: str) -> None:
    model = random_weights(MODELS[name]())
    x = data(model)
    expected = model.predict(x, verbose=0)
    sim = QuantizationSimModel(model, default_output_bw=16, default_param_bw=16)
    assert isinstance(sim.model, keras.Model) and sim.model is not model
    with sim.quantizers_off():
        plain = sim.model.predict(x, verbose=0)
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-6)
    sim.compute_encodings(lambda m: m.predict(x, verbose=0))
    close = sim.model.predict(x, verbose=0)
    assert 0 < np.abs(close - expected).max() < 0.01 * np.abs(expected).max()
    # Every kernel of a layer with a core is a parameter that is quantized.
    cores = [m for m in sim.model.modules() if hasattr(m, "parametrizations")]
    params = {s.module for s in sim.sites() if s.kind == "param" and s.quantizer}
    names = {name for name, m in sim.model.named_modules() if m in cores}
    assert names <= params
    assert names or name in ("separable", "transposed", "norms", "words")
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


def test_convolutions_are_placed_like_pytorchs() -> None:
    model = sequential(
        (8, 8, 1),
        L.Conv2D(4, 3, use_bias=False),
        L.BatchNormalization(),
        L.ReLU(),
        L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
        L.Flatten(),
        L.Dense(3),
    )
    sim = QuantizationSimModel(model)
    conv, _, relu, depthwise, _, dense = (layer.name for layer in model.layers)
    assert {s.name for s in sim.sites() if s.quantizer is not None} == {
        f"{conv}.core.input.0",
        f"{conv}.core.weight",
        f"{relu}.core",
        f"{depthwise}.core.weight",
        f"{depthwise}.act",
        f"{dense}.core.weight",
        f"{dense}.core",
    }
    sim.compute_encodings(lambda m: m.predict(data(model), verbose=0))
    channels = [
        site.quantizer.min.numel()
        for site in sim.sites()
        if site.kind == "param" and site.quantizer is not None
    ]
    assert channels == [4, 8, 3]
    # MACs: 6x6 x 4 x 9, 4x4 x 8 x 9, 128 x 3
    assert sim.bit_ops() == 64 * (36 * 36 + 16 * 72 + 384)


def test_batch_norms_are_folded() -> None:
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, use_bias=False, name="first")(inputs)
    x = L.BatchNormalization(name="first_norm")(x)
    x = L.ReLU()(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="second")(x)
    x = L.BatchNormalization(name="second_norm")(x)
    kept = L.BatchNormalization(name="kept")(L.ReLU()(x))
    x = L.Flatten()(L.ReLU()(kept))
    x = L.BatchNormalization(name="last_norm")(L.Dense(3, name="last")(x))
    model = random_weights(keras.Model(inputs, x))
    model.compile("sgd", "mse")
    before = [w.copy() for w in model.get_weights()]
    pairs, folded = fold_all_batch_norms(model)
    assert [(layer.name, norm.name) for layer, norm in pairs] == [
        ("first", "first_norm"),
        ("second", "second_norm"),
        ("last", "last_norm"),
    ]
    assert all(layer in folded.layers and norm in model.layers for layer, norm in pairs)
    assert isinstance(folded.get_layer("first_norm"), L.Identity)
    assert isinstance(folded.get_layer("kept"), L.BatchNormalization)
    assert folded.get_layer("first").use_bias and folded.compiled
    x = data(model)
    np.testing.assert_allclose(
        folded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def digits() -> tuple[np.ndarray, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype("float32") / 16, labels


def accuracy(model: Any, labelled: Any) -> float:
    images, labels = labelled
    answers = model.predict(images, batch_size=256, verbose=0).argmax(1)
    return float((answers == labels).mean())


def small_cnn() -> Any:
    keras.utils.set_random_seed(0)
    model = sequential(
        (8, 8, 1),
        L.Conv2D(8, 3, padding="same", use_bias=False),
        # Statistics that a few epochs suffice for.
        L.BatchNormalization(momentum=0.9),
        L.ReLU(),
        L.MaxPooling2D(),
        L.Conv2D(16, 3, padding="same", activation="relu"),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dense(10, activation="softmax"),
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    return model


def test_the_whole_way_on_digits(tmp_path: Path) -> None:
    images, labels = digits()
    train, test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])
    model = small_cnn()
    model.fit(*train, epochs=6, batch_size=64, verbose=0)
    _, model = fold_all_batch_norms(model)
    float_accuracy = accuracy(model, test)
    assert float_accuracy > 0.85

    sim = QuantizationSimModel(model, default_output_bw=16, default_param_bw=16)

    def calibrate(keras_model: Any, _: Any) -> None:
        keras_model.predict(train[0][:200], verbose=0)

    sim.compute_encodings(calibrate, None)
    evaluate = CallbackFunc(accuracy, test)
    found = choose_mixed_precision(
        sim,
        CANDIDATES,
        evaluate,
        evaluate,
        0.02,
        str(tmp_path / "regular"),
        True,
        CallbackFunc(calibrate, None),
        progress=False,
    )
    assert found.fp32_score == pytest.approx(float_accuracy)
    assert found.final_score >= float_accuracy - 0.02
    assert 0 < found.chosen.cost < 0.5
    assert accuracy(sim.model, test) == pytest.approx(found.final_score)

    fast = choose_fast_mixed_precision(
        sim,
        CANDIDATES,
        lambda: [train[0][i : i + 32] for i in range(0, 128, 32)],
        evaluate,
        0.02,
        str(tmp_path / "fast"),
        True,
        None,
        forward_pass_callback_2=lambda m, batch: m.predict(batch, verbose=0),
        progress=False,
    )
    assert fast.final_score >= float_accuracy - 0.02

    # Weights of 2 bits lose much; training gets most of it back.
    quantized = [site for site in sim.sites() if site.quantizer is not None]
    sim.apply_precisions(["int2" if s.kind == "param" else "int8" for s in quantized])
    narrow = accuracy(sim.model, test)
    assert narrow < float_accuracy - 0.1
    sim.model.fit(*train, epochs=4, batch_size=64, verbose=0)
    trained = accuracy(sim.model, test)
    assert trained > narrow + 0.1

    sim.model.save(tmp_path / "trained.keras")
    loaded = keras.models.load_model(tmp_path / "trained.keras")
    assert type(loaded) is keras.Sequential
    for saved, now in zip(loaded.get_weights(), sim.model.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, now)
    assert accuracy(loaded, test) > 0.7
    assert accuracy(sim.model, test) == trained  # saving changes nothing

    sim.export(str(tmp_path), "trained")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(tmp_path / "trained.onnx")
    feeds = {session.get_inputs()[0].name: test[0][:1]}
    (output,) = session.run(None, feeds)
    expected = sim.model.predict(test[0][:1], verbose=0)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_groups_have_the_methods_of_aimets() -> None:
    sim = QuantizationSimModel(random_weights(MODELS["residual"]()))
    quantizers, groups = find_quantizer_group(sim)
    group = next(g for g in groups if g.parameter_quantizers and g.output_quantizers)
    assert isinstance(group, QuantizerGroup)
    param = group.lookup_quantizer(group.parameter_quantizers[0], quantizers)
    assert param in quantizers.values()
    active = group.get_active_param_quantizers(quantizers)
    assert param in active and len(active) < len(
        group.get_active_quantizers(quantizers)
    )
    with pytest.raises(KeyError):
        group.lookup_quantizer("nothing", quantizers)


class Subclassed(keras.Model):
    """Does not say its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"a keras\.Model is required, got Linear"):
        QuantizationSimModel(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="the model must be built"):
        QuantizationSimModel(keras.Sequential([L.Dense(2)]))
    model = MODELS["dense"]()
    with pytest.raises(ValueError, match='rounding_mode must be "nearest"'):
        QuantizationSimModel(model, rounding_mode="stochastic")
    with pytest.raises(ValueError, match="leaves a dimension open"):
        QuantizationSimModel(sequential((None, 4), L.Dense(2)))
    subclassed = Subclassed()
    subclassed(np.zeros((1, 4), "float32"))
    with pytest.raises(ValueError, match="does not say its inputs: give dummy_input"):
        QuantizationSimModel(subclassed)
    with pytest.raises(ValueError, match="a Functional or Sequential model is requ"):
        fold_all_batch_norms(subclassed, dummy_input=torch.zeros(1, 4))
    with pytest.raises(TypeError, match="must be a callable that returns a data load"):
        choose_fast_mixed_precision(None, [], [], None, None, "", True, None)
    sim = QuantizationSimModel(model)
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.deepcopy(sim)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=torch"):
        QuantizationSimModel(model)


def test_in_place_and_back() -> None:
    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    expected = model.predict(x, verbose=0)
    sim = QuantizationSimModel(
        model, "min_max", in_place=True, dummy_input=torch.zeros(1, 5)
    )
    assert sim.model is model
    sim.compute_encodings(lambda m: m.predict(x, verbose=0))
    assert np.abs(model.predict(x, verbose=0) - expected).max() > 0
    functional = random_weights(MODELS["residual"]())
    sim = QuantizationSimModel(functional)
    original = QuantizationSimModel.get_original_model(sim)
    np.testing.assert_allclose(
        original.predict(data(functional), verbose=0),
        functional.predict(data(functional), verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )
    # A failure leaves a model that is quantized in place as it was.
    failing = MODELS["dense"]()
    with pytest.raises(FileNotFoundError):
        QuantizationSimModel(failing, in_place=True, config_file="no such config")
    assert failing.predict(data(failing), verbose=0).shape == (3, 5, 3)
    children = [name for name, _ in failing.named_children()]
    assert children == ["_functional", "_torch_params"]
