# SPDX-License-Identifier: BSD-3-Clause
"""Folding: what folds computes as before, and what would not stays."""

import pytest
import torch
import torch.nn.functional as F
from ptq_models import copied, num_batch_norms, relative_change, with_statistics
from torch import nn

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.quantsim import QuantizationSimModel

# Weights are float32: what is folded is rounded once.
TOLERANCE = 1e-6


def folded(model, shape, pairs):
    """Folds a copy, and checks that the outputs stayed."""
    torch.manual_seed(0)
    model = with_statistics(model)
    changed = copied(model)
    got = fold_all_batch_norms(changed, shape)
    assert len(got) == pairs
    x = torch.randn(shape, dtype=torch.float64)
    assert relative_change(copied(model), copied(changed), x) < TOLERANCE
    return changed


BACKWARD = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d, (2, 4, 9)),
    "conv2d without bias": (
        lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.BatchNorm2d,
        (2, 4, 9, 9),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 6, 3), nn.BatchNorm3d, (2, 2, 5, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d, (2, 4, 9, 9)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d, (2, 6, 9, 9)),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2),
        nn.BatchNorm2d,
        (2, 4, 5, 5),
    ),
    "transposed, grouped": (
        lambda: nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False),
        nn.BatchNorm1d,
        (2, 4, 5),
    ),
    "linear": (lambda: nn.Linear(5, 6), nn.BatchNorm1d, (3, 5)),
}


@pytest.mark.parametrize("case", BACKWARD)
def test_backward(case):
    make, norm, shape = BACKWARD[case]
    model = nn.Sequential(make(), norm(6), nn.ReLU())
    changed = folded(model, shape, pairs=1)
    assert isinstance(changed[1], nn.Identity)
    assert list(changed.state_dict()) == ["0.weight", "0.bias"]


def test_batch_norm_without_affine_parameters():
    folded(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
        (1, 3, 8, 8),
        pairs=1,
    )


FORWARD = {
    "conv": (nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), (2, 4, 9, 9)),
    "grouped": (nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2), (2, 4, 9, 9)),
    "reflecting": (
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", bias=False),
        (2, 4, 9, 9),
    ),
    "linear": (nn.BatchNorm1d(4), nn.Linear(4, 6), (3, 4)),
}


@pytest.mark.parametrize("case", FORWARD)
def test_forward(case):
    norm, layer, shape = FORWARD[case]
    changed = folded(nn.Sequential(nn.ReLU(), norm, layer), shape, pairs=1)
    assert isinstance(changed[1], nn.Identity)


def test_both_sides_of_one_convolution():
    model = nn.Sequential(
        nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
    )
    folded(model, (2, 4, 9, 9), pairs=2)


def test_zero_padding_keeps_a_shift_before_the_convolution():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1))
    folded(model, (2, 4, 9, 9), pairs=0)
    # Without a shift there is nothing that the padding lacks.
    with torch.no_grad():
        model[1].running_mean.zero_()
        model[1].bias.zero_()
    assert len(fold_all_batch_norms(model, (2, 4, 9, 9))) == 1


def test_without_a_shift_no_bias_is_needed():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, bias=False)
    )
    with_statistics(model)
    with torch.no_grad():
        model[1].running_mean.zero_()
        model[1].bias.zero_()
    changed = copied(model)
    assert len(fold_all_batch_norms(changed, (2, 4, 9, 9))) == 1
    assert changed[2].bias is None
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    assert relative_change(model, changed, x) < TOLERANCE


def test_transposed_convolution_takes_no_batch_norm_before_it():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 3))
    folded(model, (2, 4, 5, 5), pairs=0)


class FunctionalNorm(nn.Module):
    """conv -> F.batch_norm -> F.conv2d -> nn.BatchNorm2d."""

    def __init__(self, last_bias=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)  # holds tensors, is not called
        self.kernel = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.shift = nn.Parameter(torch.randn(6)) if last_bias else None
        self.last = nn.BatchNorm2d(6)

    def forward(self, x):
        norm = self.norm
        x = F.batch_norm(
            self.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        return self.last(F.conv2d(F.relu(x), self.kernel, self.shift, groups=2))


def test_functional_batch_norm_and_convolution():
    changed = folded(FunctionalNorm(), (2, 3, 9, 9), pairs=2)
    assert isinstance(changed.last, nn.Identity)
    assert isinstance(changed.norm, nn.BatchNorm2d)  # nobody calls it


def test_a_folded_functional_batch_norm_must_stay_in_eval_mode():
    class Norm(nn.BatchNorm2d):
        """With a child, as timm's: no leaf, so that the call inside is seen."""

        def __init__(self, channels):
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x):
            mean, var = self.running_mean, self.running_var
            weight, bias = self.weight, self.bias
            return self.act(F.batch_norm(x, mean, var, weight, bias, self.training))

    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), Norm(4)))
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    pairs = fold_all_batch_norms(model, x.shape)
    model.train()
    for _, module in pairs:
        module.eval()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_a_simulation_does_not_quantize_statistics():
    torch.manual_seed(0)
    model, x = with_statistics(FunctionalNorm()), torch.randn(4, 3, 9, 9)
    sim = QuantizationSimModel(model, x)
    sim.compute_encodings(lambda m: m(x))
    inputs = {s.name for s in sim.sites() if s.kind == "input" and s.quantizer}
    assert inputs == {"conv.input.0"}
    sim.model(x).sum().backward()  # a batch norm has no gradient to its statistics
    assert sim.model.conv.weight.grad.any()


def test_functional_convolution_without_bias_cannot_take_a_shift():
    changed = folded(FunctionalNorm(last_bias=False), (2, 3, 9, 9), pairs=1)
    assert isinstance(changed.last, nn.BatchNorm2d)


class Tokens(nn.Module):
    """A linear layer over tokens, each channel of which is normalized."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.fc(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x).relu()


def test_linear_layer_over_tokens():
    folded(Tokens(), (2, 7, 5), pairs=1)


class Branching(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        before = self.conv(x)
        after = self.norm(before)
        if self.how == "returned":
            return after, before
        if self.how == "viewed":
            return after.flatten(1) + before.flatten(1)
        return self.norm(self.conv(x + 1)) + after  # called twice


@pytest.mark.parametrize(
    ("how", "pairs"), [("returned", 0), ("viewed", 0), ("twice", 1)]
)
def test_other_readers_of_the_result(how, pairs):
    torch.manual_seed(0)
    model = with_statistics(Branching(how))
    changed = copied(model)
    assert len(fold_all_batch_norms(changed, (1, 3, 8, 8))) == pairs
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        for expected, got in zip(model(x), changed(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.second(F.relu(self.first(x))))


def test_a_tied_weight_stays():
    folded(Tied(), (3, 4), pairs=0)


def test_statistics_of_the_batch_do_not_fold():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
    )
    folded(model, (2, 3, 8, 8), pairs=0)


def test_computed_weights_do_not_fold():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight - self.weight.mean(), self.bias)

    folded(
        nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4)), (1, 3, 8, 8), pairs=0
    )
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    folded(nn.Sequential(normed, nn.BatchNorm2d(4)), (1, 3, 8, 8), pairs=0)


def test_the_model_is_its_own_again_and_keeps_its_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    conv = model[0]
    pairs = fold_all_batch_norms(model, dummy_input=torch.randn(2, 3, 8, 8))
    assert pairs[0][0] is conv and isinstance(pairs[0][1], nn.BatchNorm2d)
    assert [type(m) for m in model] == [nn.Conv2d, nn.Identity, nn.ReLU]
    assert all(m.training for m in model.modules())
    assert conv.bias is None or conv.bias.requires_grad


def test_half_precision_and_two_inputs():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x, y):
            return self.norm(self.conv(x + y))

    model = with_statistics(TwoInputs()).bfloat16()
    fold_all_batch_norms(model, [(1, 3, 8, 8), (1, 3, 8, 8)])
    assert num_batch_norms(model) == 0
    assert model.conv.weight.dtype == torch.bfloat16


def test_wrong_arguments():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="input_shapes or dummy_input is required"):
        fold_all_batch_norms(model)
    for shapes in (5, "abc", [(1, 3), "x"], []):
        with pytest.raises(TypeError, match="input_shapes must be a shape such as"):
            fold_all_batch_norms(model, shapes)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        fold_all_batch_norms("model", (1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="^fold_all_batch_norms: the model"):
        fold_all_batch_norms(model, (1, 7, 8, 8))
    assert type(model[0]) is nn.Conv2d
