# SPDX-License-Identifier: BSD-3-Clause
"""Affine quantizers on their own: encodings, symmetry, state, calibration."""

import pytest
import torch

from aimetpp.quantization import Dequantize, Quantize, QuantizeDequantize

SYMMETRIES = {
    "asymmetric": {"symmetric": False},
    "symmetric": {"symmetric": True},
    "strict_symmetric": {"symmetric": True, "strict_symmetric": True},
}


def make(bitwidth=8, shape=(), **options):
    return QuantizeDequantize(shape, bitwidth, **{"symmetric": False, **options})


def calibrate(quantizer, *batches):
    with quantizer.compute_encodings():
        for batch in batches:
            quantizer(torch.as_tensor(batch))
    return quantizer


# -- encodings --------------------------------------------------------------


def test_encoding_by_hand():
    quantizer = make()
    quantizer.set_range(-1.0, 3.0)
    scale = (torch.tensor(4.0) / 255).item()
    assert quantizer.get_encodings() == {
        "dtype": "int",
        "bitwidth": 8,
        "precision": "int8",
        "is_symmetric": False,
        "scale": [scale],
        "offset": [-64],  # 63.75 rounded
        "min": [(-64 * torch.tensor(scale)).item()],
        "max": [(191 * torch.tensor(scale)).item()],
    }


@pytest.mark.parametrize("shape", [(), (3, 1, 1)])
@pytest.mark.parametrize("bitwidth", [2, 4, 8, 16, 21, 22, 32])
@pytest.mark.parametrize("options", SYMMETRIES.values(), ids=SYMMETRIES.keys())
def test_tensors_are_the_encoding_to_the_last_bit(options, bitwidth, shape):
    torch.manual_seed(bitwidth)
    quantizer = make(bitwidth, shape, **options)
    quantizer.set_range(-3 * torch.rand(shape), 5 * torch.rand(shape))
    encoding = quantizer.get_encodings()
    for name in ("min", "max", "scale", "offset"):
        tensor = getattr(quantizer, f"get_{name}")()
        assert tensor.shape == quantizer.min.shape
        assert tensor.flatten().tolist() == encoding[name]


def test_a_range_that_training_turned_around_has_a_negative_scale():
    quantizer = make()
    quantizer.set_range(0.0, 1.0)
    with torch.no_grad():
        quantizer.max.fill_(-1.0)
    x = torch.tensor([-0.5, 0.5])
    scale, offset = quantizer.get_scale(), quantizer.get_offset()
    assert scale.item() == (torch.tensor(-1.0) / 255).item()
    expected = (torch.clamp(torch.round(x / scale) - offset, 0, 255) + offset) * scale
    assert torch.equal(quantizer(x), expected)


@pytest.mark.parametrize("bitwidth", [8, 16])
def test_gradients_of_scale_and_grid_ends(bitwidth):
    steps = 2**bitwidth - 1
    quantizer = make(bitwidth)
    quantizer.set_range(-1.0, 2.0)
    quantizer.get_scale().backward()
    assert quantizer.min.grad.item() == pytest.approx(-1 / steps, rel=1e-6)
    assert quantizer.max.grad.item() == pytest.approx(1 / steps, rel=1e-6)
    quantizer.zero_grad()
    quantizer.get_min().backward()  # follows min as if nothing were rounded
    assert quantizer.min.grad.item() == pytest.approx(1, abs=1e-6)
    assert quantizer.max.grad.item() == pytest.approx(0, abs=1e-6)


def test_there_is_no_encoding_before_calibration():
    quantizer = make()
    assert quantizer.get_scale() is None and quantizer.get_offset() is None
    assert quantizer.get_min() is None and quantizer.get_max() is None
    assert quantizer.get_encodings() is None
    quantizer.label = "conv1"
    with pytest.raises(RuntimeError, match="quantizer 'conv1' has no range yet"):
        quantizer(torch.zeros(3))


def test_an_infinite_range_names_the_quantizer():
    quantizer = make()
    quantizer.label = "conv1"
    quantizer.set_range(0.0, 1.0)
    with torch.no_grad():
        quantizer.max.fill_(float("inf"))
    with pytest.raises(ValueError, match="'conv1': .*must be finite"):
        quantizer.get_encodings()


# -- symmetry ---------------------------------------------------------------


def test_strict_symmetric_leaves_out_the_lowest_integer():
    quantizer = calibrate(make(symmetric=True, strict_symmetric=True), [-1.0, 0.5])
    assert quantizer.grid.tolist() == [-127, 127]
    assert (quantizer.min.item(), quantizer.max.item()) == (-1.0, 1.0)


def test_unsigned_symmetric_has_no_sign_where_no_channel_needs_one():
    quantizer = make(shape=(2, 1), symmetric=True, unsigned_symmetric=True)
    calibrate(quantizer, [[0.0, 1.0], [0.5, 2.0]])
    assert quantizer.grid.tolist() == [0, 255]
    assert quantizer.min.flatten().tolist() == [0, 0]
    assert quantizer.max.flatten().tolist() == [1, 2]
    quantizer.bitwidth = 4
    assert quantizer.grid.tolist() == [0, 15]
    calibrate(quantizer, [[0.0, 1.0], [-0.5, 2.0]])
    assert quantizer.grid.tolist() == [-8, 7]


def test_a_loaded_symmetric_grid_without_sign_keeps_none():
    source = make(symmetric=True, unsigned_symmetric=True)
    calibrate(source, [0.0, 1.0])
    quantizer = make(symmetric=True, unsigned_symmetric=True)
    quantizer.load_state_dict(source.state_dict())
    quantizer.bitwidth = 4  # no statistics to ask
    assert quantizer.grid.tolist() == [0, 15]


def test_setting_the_symmetry_derives_grid_and_range_anew():
    quantizer = calibrate(make(), [-2.0, 3.0])
    quantizer.symmetric = True
    encoding = quantizer.get_encodings()
    # The step is max(3 / 127, 2 / 128).
    assert encoding["is_symmetric"] is True
    assert encoding["offset"] == [0]
    assert encoding["scale"] == pytest.approx([3 / 127])
    quantizer.bitwidth = 4
    assert quantizer.grid.tolist() == [-8, 7]
    quantizer.symmetric = False
    assert quantizer.grid.tolist() == [0, 15]
    assert (quantizer.min.item(), quantizer.max.item()) == (-2.0, 3.0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_loading_a_state_takes_its_symmetry(symmetric):
    source = calibrate(make(symmetric=symmetric), [-2.0, 3.0])
    quantizer = make(symmetric=not symmetric)
    quantizer.load_state_dict(source.state_dict())
    assert quantizer.get_encodings() == source.get_encodings()


# -- state ------------------------------------------------------------------


@pytest.mark.parametrize("bitwidth", [2, 5, 8, 32])
@pytest.mark.parametrize(
    "options",
    [
        *SYMMETRIES.values(),
        {"symmetric": False, "strict_symmetric": True},
        {"symmetric": True, "unsigned_symmetric": True, "strict_symmetric": True},
    ],
)
def test_state_dict_restores_the_bitwidth(options, bitwidth):
    source = calibrate(make(bitwidth, **options), [0.0, 1.0])
    quantizer = make(7, **options)
    quantizer.load_state_dict(source.state_dict())
    assert quantizer.bitwidth == bitwidth
    assert quantizer.get_encodings() == source.get_encodings()


def test_only_the_device_follows_a_model():
    quantizer = calibrate(make(), [-1.0, 1.0]).half()
    assert quantizer.min.dtype == torch.float32
    assert quantizer(torch.zeros(2, dtype=torch.float16)).dtype == torch.float16


def test_a_frozen_range_stays():
    quantizer = calibrate(make(), [-1.0, 1.0])
    quantizer.allow_overwrite(False)
    calibrate(quantizer, [-9.0, 9.0])
    assert (quantizer.min.item(), quantizer.max.item()) == (-1.0, 1.0)


def test_an_interrupted_calibration_changes_nothing():
    quantizer = calibrate(make(), [-1.0, 1.0])
    before = quantizer.get_encodings()
    with pytest.raises(KeyError), quantizer.compute_encodings():
        quantizer(torch.tensor([9.0]))
        raise KeyError
    assert quantizer.get_encodings() == before
    quantizer.bitwidth = 8  # from the statistics kept before
    assert quantizer.get_encodings() == before


def test_quantize_and_dequantize_are_the_halves():
    x = torch.arange(-8, 8) * 0.5
    whole = calibrate(make(4), x)
    first, second = Quantize((), 4, False), Dequantize((), 4, False)
    for half in (first, second):
        half.set_range(whole.min, whole.max)
    q = first(x)
    assert q.dtype == torch.float32
    assert q.tolist() == list(range(16))
    assert torch.equal(second(q), x)
    assert torch.equal(whole(x + 0.1), x)


# -- arguments --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((), 1, False), "bitwidth must be between 2 and 32, got 1"),
        (((), 33, False), "bitwidth must be between 2 and 32, got 33"),
        (((2, 3), 8, False), r"at most one dimension larger than 1 .*\(2, 3\)"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        QuantizeDequantize(*arguments)


@pytest.mark.parametrize("bitwidth", [8.0, "8", None, True])
def test_a_bitwidth_must_be_an_int(bitwidth):
    with pytest.raises(TypeError, match=f"bitwidth must be an int.*{bitwidth!r}"):
        QuantizeDequantize((), bitwidth, True)
    quantizer = make()
    with pytest.raises(TypeError, match="bitwidth must be an int"):
        quantizer.bitwidth = bitwidth
    assert quantizer.bitwidth == 8


def test_a_shape_must_be_a_tuple():
    with pytest.raises(TypeError, match="shape must be a tuple.*got 4"):
        QuantizeDequantize(4, 8, True)


def test_an_unknown_scheme_is_an_error_at_once():
    with pytest.raises(ValueError, match='"tf_enhanced".*got "best"'):
        make(scheme="best")


@pytest.mark.parametrize(
    ("low", "high", "match"),
    [
        (1.0, 0.0, "min must not be above max"),
        (float("nan"), 1.0, "min must be finite"),
        (0.0, [1.0, 2.0], "max must have 1 or 3 values, got 2"),
    ],
)
def test_bad_ranges(low, high, match):
    with pytest.raises(ValueError, match=match):
        make(shape=(3,)).set_range(low, high)
