# SPDX-License-Identifier: BSD-3-Clause
"""Batch norms and layers that look as if they folded, or shared factors, and do not."""

import pytest
import torch
import torch.nn.functional as F
from ptq_models import num_batch_norms, with_statistics
from torch import nn

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.cross_layer_equalization import equalize_model

IMAGES = (2, 3, 8, 8)


class Net(nn.Module):
    """A model of these modules with this forward."""

    def __init__(self, forward, **modules):
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self._forward(self, x)


def conv(inputs=3, outputs=4, **options):
    return nn.Conv2d(inputs, outputs, 3, **options)


class BatchStatistics(nn.BatchNorm2d):
    """Never uses what it keeps."""

    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


class WithoutBias(nn.Conv2d):
    """Has no use for a bias."""

    def forward(self, x):
        return F.conv2d(x, self.weight)


class Padding(nn.Conv2d):
    """Pads on its own, with what it is told to."""

    value = 0.0

    def forward(self, x):
        x = F.pad(x, (1, 0, 1, 0), value=self.value)
        return F.conv2d(x, self.weight, self.bias)


class LastAxis(nn.Conv2d):
    """Takes and gives tensors with the channels on the last axis."""

    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def hooked():
    model = nn.Sequential(conv(), nn.BatchNorm2d(4))
    model[1].register_forward_hook(lambda module, inputs, output: output * 2 + 1)
    return model


def in_one_memory(of):
    """Two layers whose parameters are apart, and are one memory."""
    first, second = conv(3, 3, padding=1), conv(3, 3, padding=1)
    setattr(second, of, nn.Parameter(getattr(first, of).data))
    norm = nn.BatchNorm2d(3)
    return Net(lambda net, x: net.c(net.b(net.a(x))), a=first, b=second, c=norm)


def functional(mean_of, weight_of):
    """With statistics and weights that are computed in the forward."""

    def forward(net, x):
        norm = net.norm
        mean, weight = mean_of(norm.running_mean), weight_of(norm.weight)
        return F.batch_norm(net.conv(x), mean, norm.running_var, weight, norm.bias)

    return Net(forward, conv=conv(), norm=nn.BatchNorm2d(4))


def statistics_of_another():
    def forward(net, x):
        norm = net.norm
        here = F.batch_norm(net.conv(x), norm.running_mean, norm.running_var)
        return here + norm(x.mean(1, keepdim=True).repeat(1, 4, 1, 1)[..., 2:, 2:])

    return Net(forward, conv=conv(), norm=nn.BatchNorm2d(4, affine=False))


def buffer_in_forward():
    def forward(net, x):
        return net.norm(net.conv(x)) + net.norm.running_mean.sum()

    return Net(forward, conv=conv(), norm=nn.BatchNorm2d(4))


def type_in_forward():
    def forward(net, x):
        return net.norm(net.conv(x)).to(net.norm.weight.dtype)

    return Net(forward, conv=conv(), norm=nn.BatchNorm2d(4))


STAY = {
    "statistics of the batch": lambda: nn.Sequential(conv(), BatchStatistics(4)),
    "a layer that adds no bias": lambda: nn.Sequential(
        WithoutBias(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    ),
    "a layer that pads": lambda: nn.Sequential(
        nn.ReLU(), nn.BatchNorm2d(3), Padding(3, 4, 3)
    ),
    "a hook": hooked,
    "a weight in another's memory": lambda: in_one_memory("weight"),
    "a bias in another's memory": lambda: in_one_memory("bias"),
    "a computed mean": lambda: functional(lambda x: x + 1, lambda x: x),
    "a computed weight": lambda: functional(lambda x: x, lambda x: x + 1),
    "statistics of another": statistics_of_another,
    "a buffer read in the forward": buffer_in_forward,
    "a type read in the forward": type_in_forward,
}


@torch.no_grad()
def change(model, shape, apply):
    """What `apply` returns, and how it changed the outputs, relative to the largest."""
    x = 5 * torch.randn(shape)
    before = model(x)
    returned = apply(model)  # no copy: that would part what is in one memory
    return returned, ((model(x) - before).abs().max() / before.abs().max()).item()


def fold(model, shape, pairs):
    """Folds, and checks that the outputs stayed."""
    got, difference = change(model, shape, lambda m: fold_all_batch_norms(m, shape))
    assert len(got) == pairs
    assert difference < 1e-5
    return model


@pytest.mark.parametrize("case", STAY)
def test_what_would_change_the_model_stays(case):
    torch.manual_seed(0)
    model = with_statistics(STAY[case]())
    before = num_batch_norms(model)
    assert num_batch_norms(fold(model, IMAGES, pairs=0)) == before


def test_channels_on_another_axis():
    torch.manual_seed(0)
    # [samples, height, width, channels], where the batch norm sees height as channels.
    last = with_statistics(nn.Sequential(LastAxis(3, 6, 3), nn.BatchNorm2d(6)))
    fold(last, (2, 8, 8, 3), pairs=0)
    # [channels, places]: one sample.
    single = with_statistics(nn.Sequential(nn.Conv1d(3, 5, 1), nn.BatchNorm1d(5)))
    fold(single, (3, 5), pairs=0)
    fold(single, (2, 3, 5), pairs=1)


def test_subclasses_that_compute_as_expected_fold():
    class Same(nn.Conv2d):
        """Pads as TensorFlow's "same" does, as of timm."""

        def forward(self, x):
            x = F.pad(x, (0, 1, 0, 1))
            return F.conv2d(x, self.weight, self.bias, stride=2)

    class Checked(nn.BatchNorm2d):
        """Looks at its input first."""

        def forward(self, x):
            assert x.shape[1] == self.num_features
            return super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(Same(3, 4, 3, bias=False), Checked(4), nn.ReLU())
    changed = fold(with_statistics(model), IMAGES, pairs=1)
    assert changed[0].bias is not None


def test_an_error_on_the_way_leaves_the_model(monkeypatch):
    from aimetpp.ptq.batch_norms import BatchNorm

    model = with_statistics(nn.Sequential(conv(bias=False), nn.BatchNorm2d(4)))
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def fail(self, model):
        raise MemoryError

    monkeypatch.setattr(BatchNorm, "remove_from", fail)
    with pytest.raises(MemoryError):
        fold_all_batch_norms(model, IMAGES)
    assert model[0].bias is None
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_parameters_that_are_not_made_yet():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4))
    with pytest.raises(RuntimeError, match="'0' has no parameters yet: run the model"):
        fold_all_batch_norms(model, IMAGES)


def unequal(*layers):
    """Layers in a row, with output channels of very different ranges."""
    torch.manual_seed(0)
    model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Conv2d):
                spread = torch.exp(2 * torch.randn(len(module.weight), 1, 1, 1))
                module.weight.mul_(spread)
    return model


def equalized(model, chains):
    got, difference = change(
        model, IMAGES, lambda m: equalize_model(m, IMAGES, fold_high_bias=False)
    )
    assert got == chains
    assert difference < 1e-5
    return model


def test_layers_that_no_factor_passes_are_not_equalized():
    class PaddingWithTwo(Padding):
        value = 2.0

    equalized(unequal(conv(), nn.ReLU(), Padding(4, 4, 3)), [("0", "2")])
    equalized(unequal(conv(), nn.ReLU(), PaddingWithTwo(4, 4, 3)), [])
    model = unequal(conv(), nn.ReLU(), conv(4), nn.ReLU(), conv(4))
    model[4].weight = nn.Parameter(model[2].weight.data)
    equalized(model, [])


def test_a_relu6_that_also_ends_the_model_stays():
    act = nn.ReLU6()
    changed = equalized(unequal(conv(), act, conv(4), act), [])
    assert type(changed[1]) is nn.ReLU6
    inside = unequal(conv(), act, conv(4), act, conv(4, padding=1))
    chains = equalize_model(inside, (2, 3, 12, 12))
    assert chains == [("0", "2"), ("2", "4")]
    assert type(inside[1]) is type(inside[3]) is nn.ReLU
