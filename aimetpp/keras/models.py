# SPDX-License-Identifier: BSD-3-Clause
"""Keras models as PyTorch sees them: checked, copied, with layers as child modules."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
from torch.utils import _pytree as pytree

from aimetpp.keras.cores import (
    Noise,
    make_activation,
    make_core,
    share_parameters,
)
from aimetpp.nn.wrap import BaseQuantizationMixin
from aimetpp.quantsim.tracing import split_dummy_input

# Keras keeps a table of variables as a module, and inside a Sequential a Functional of
# the same layers: to PyTorch they would be the parameters a second time.
_OWN_MODULES = ("_functional", "_torch_params")
# They pass their input through in inference.
_ONLY_IN_TRAINING = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# Keeps a layer's own value of `_convert_input_args`.
_CONVERTS = "_aimetpp_convert_input_args"
# Names of the children that a model has been given.
_ADDED = "_aimetpp_added_children"


def check_model(model: Any, who: str) -> None:
    """Raises for what is no built Keras model on PyTorch.

    Raises:
        RuntimeError: another backend.
        TypeError: not a Keras model.
        ValueError: not built.
    """
    if keras.backend.backend() != "torch":
        raise RuntimeError(
            "aimetpp.keras needs Keras on PyTorch: set the environment variable "
            "KERAS_BACKEND=torch before Keras is imported; its backend is "
            f"{keras.backend.backend()!r}"
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"{who}: a keras.Model is required, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"{who}: the model must be built: give it an Input layer, or call it once"
        )


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer but models, those of nested models too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def copied(
    model: Any,
    clone_layer: Callable[[Any], Any] | None = None,
    example: Any = None,
) -> Any:
    """A copy of a model, compiled as it is.

    Args:
        model: the model.
        clone_layer: makes the new layer of an old one, without its weights; by default
            from its config, and weights are copied.
        example: with which a subclassed model is called.

    Raises:
        ValueError: layers that their configs do not describe; a subclassed model with
            a `clone_layer`, or without an example.
    """
    if getattr(model, "inputs", None):
        nests = any(isinstance(layer, keras.Model) for layer in model.layers)
        call = None if isinstance(model, keras.Sequential) else _call_clone
        try:
            copy = keras.models.clone_model(
                model,
                clone_function=clone_layer,
                call_function=call,
                recursive=nests,
            )
        except (TypeError, ValueError) as error:  # a Lambda of a Python function
            raise ValueError(
                f"{model.name}: not all layers can be made again from their configs"
                + (
                    "; use in_place=True"
                    if clone_layer is None and example is not None
                    else ""
                )
                + f": {error}"
            ) from error
    elif clone_layer is None and example is not None:
        copy = _constructed_again(model, example)
    else:
        raise ValueError(
            "a Functional or Sequential model is required, got a subclassed "
            f"{type(model).__name__}, whose layers cannot be replaced"
        )
    if model.compiled and not copy.compiled:
        copy.compile_from_config(model.get_compile_config())
    for new, old in zip(layers_of(copy), layers_of(model), strict=True):
        new.trainable = old.trainable
        if clone_layer is None:
            new.set_weights(old.get_weights())
    return copy


def _constructed_again(model: Any, example: Any) -> Any:
    """A second object of a subclassed model's class, with the same weights, that is
    seen to compute the same.
    """
    is_quantized = isinstance(model, BaseQuantizationMixin)
    own_class: Any = type(model).__mro__[1] if is_quantized else type(model)
    name = own_class.__name__
    advice = (
        f"give {name} a get_config that has all arguments of its __init__, or use "
        "in_place=True"
    )
    args, kwargs = split_dummy_input(example)
    try:
        copy = own_class.from_config(_init_arguments(own_class, model.get_config()))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be constructed again from its config; {advice}: {error}"
        ) from error
    with torch.no_grad():
        copy(*args, **kwargs)
        try:
            copy.set_weights(model.get_weights())
        except ValueError as error:
            raise ValueError(
                f"{name}: what its config constructs has other weights; {advice}: "
                f"{error}"
            ) from error
        expected, got = (pytree.tree_leaves(x(*args, **kwargs)) for x in (model, copy))
    if not all(
        torch.allclose(one, other, rtol=1e-5, atol=1e-6)
        for one, other in zip(expected, got, strict=True)
    ):
        raise ValueError(
            f"{name}: what its config constructs computes something else; {advice}"
        )
    return copy


def _init_arguments(own_class: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A config without what Keras adds to it for every model, where `__init__` does not
    take that.
    """
    parameters = inspect.signature(own_class.__init__).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return config
    added = {"name", "trainable", "dtype"} - set(parameters)
    return {key: value for key, value in config.items() if key not in added}


def _call_clone(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """A new layer's call with the arguments of the old one's."""
    if isinstance(layer, keras.layers.Identity):  # in the place of a batch norm
        kwargs.pop("mask", None)
        kwargs.pop("training", None)
    return layer(*args, **kwargs)


def example_input(model: Any) -> Any:
    """Random inputs of one sample in the shapes of a model's inputs.

    Raises:
        ValueError: a shape that the model leaves open.
    """
    generator = torch.Generator().manual_seed(0)
    embeds = any(isinstance(x, keras.layers.Embedding) for x in layers_of(model))
    # As an index, what is below 1 is 0.
    draw: Any = torch.rand if embeds else torch.randn

    def example(tensor: Any) -> torch.Tensor:
        if any(size is None for size in tensor.shape[1:]):
            raise ValueError(
                f"input {tensor.name!r} of shape {tensor.shape} leaves a dimension "
                "open: give dummy_input"
            )
        shape = (1, *tensor.shape[1:])
        if "int" in tensor.dtype:
            return torch.zeros(shape, dtype=getattr(torch, tensor.dtype))
        return draw(shape, generator=generator)

    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError("a subclassed model does not say its inputs: give dummy_input")
    examples = [example(tensor) for tensor in inputs]
    return examples[0] if len(examples) == 1 else (examples,)


def dummy_of(model: Any, given: Any) -> Any:
    """An example input as a model is called with it: a tensor, or a tuple of positional
    arguments, a dict of keyword arguments. Lists, and one tensor for each of a
    Functional model's inputs, are one argument.
    """
    if given is None:
        return example_input(model)

    def as_tensor(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.from_numpy(value)
        return tensor.float() if tensor.dtype == torch.float64 else tensor

    given = pytree.tree_map(as_tensor, given)
    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    if isinstance(given, list):
        return given[0] if len(given) == 1 else (given,)
    if isinstance(given, tuple) and 1 < len(given) == len(names):
        return (list(given),)
    return (given,) if isinstance(given, dict) and set(given) == set(names) else given


def attach(model: Any, share: bool) -> dict[torch.nn.Module, Any]:
    """Makes the layers of a Keras model its child modules, in place.

    Args:
        model: the model.
        share: cores compute with the layers' variables; else with copies.

    Returns:
        The layer of each core.
    """
    dtypes = {(x.compute_dtype, x.variable_dtype) for x in layers_of(model)}
    return _attach(model, share, casts=dtypes != {("float32", "float32")})


def _attach(model: Any, share: bool, casts: bool) -> dict[torch.nn.Module, Any]:
    cores: dict[torch.nn.Module, Any] = {}
    _hide_own_modules(model)
    added = model.__dict__.setdefault(_ADDED, [])
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        name = _child_name(layer)
        if name not in model._modules:
            added.append(name)
        model._modules[name] = layer
        if isinstance(layer, keras.Model):
            cores |= _attach(layer, share, casts)
        else:
            cores |= _attach_core(layer, share, casts)
    return cores


def detach(model: Any) -> None:
    """Takes back what `attach` has done."""
    added = model.__dict__.pop(_ADDED, [])
    for layer in model.layers:
        name = _child_name(layer)
        if name not in model._modules:
            continue
        if name in added:
            del model._modules[name]
        if isinstance(layer, keras.Model):
            detach(layer)
        else:
            layer._modules.clear()
            layer._parameters.clear()
            layer.__dict__.pop("call", None)
            if _CONVERTS in layer.__dict__:
                layer.__dict__["_convert_input_args"] = layer.__dict__.pop(_CONVERTS)
            _show_own_modules(layer)
    _show_own_modules(model)


def register_quantized(model: Any) -> None:
    """Keras's saving names the quantized layers and models by the names under which
    their own classes are registered; what is loaded is of the own classes.
    """
    objects = keras.saving.get_custom_objects()
    for layer in model.modules():
        if not isinstance(layer, BaseQuantizationMixin):
            continue
        own_class: Any = type(layer).__mro__[1]
        if isinstance(layer, keras.Model):
            type(layer).__dir__ = _own_names  # type: ignore[assignment]
        package, sep, name = keras.saving.get_registered_name(own_class).partition(">")
        if not sep:  # Keras's own, or not registered
            continue
        registered = objects.get(f"{package}>{name}")
        keras.saving.register_keras_serializable(package, name)(type(layer))
        if registered is None:
            del objects[f"{package}>{name}"]
        else:
            objects[f"{package}>{name}"] = registered


def _own_names(self: Any) -> list[str]:
    """For `dir`, by which Keras's saving finds and names the layers of a subclassed
    model.
    """
    added = self.__dict__.get(_ADDED, ())
    names: Any = torch.nn.Module.__dir__(self)
    return [name for name in names if name not in added]


def _child_name(layer: Any) -> str:
    return str(layer.name).replace(".", "_")


def _hide_own_modules(layer: Any) -> None:
    for name in _OWN_MODULES:
        if name in layer._modules:
            layer.__dict__[name] = layer._modules.pop(name)
    # Keras would make a table where there is none.
    layer.__dict__.setdefault("_torch_params", {})


def _show_own_modules(layer: Any) -> None:
    for name in _OWN_MODULES:
        own = layer.__dict__.pop(name, None)
        if isinstance(own, torch.nn.Module):
            layer._modules[name] = own


def _attach_core(layer: Any, share: bool, casts: bool) -> dict[torch.nn.Module, Any]:
    _hide_own_modules(layer)
    if not casts:  # from layer to layer
        # Else every input passes through a cast, which a trace takes for an op.
        layer.__dict__[_CONVERTS] = layer._convert_input_args
        layer.__dict__["_convert_input_args"] = False
    if isinstance(layer, _ONLY_IN_TRAINING):
        noise = Noise(layer.call)
        layer._modules["core"] = noise
        layer.__dict__["call"] = functools.partial(_call_noise, noise)
        return {}
    core, activation = None, None
    if layer.compute_dtype == layer.variable_dtype:  # else variables are cast at a call
        core, activation = make_core(layer), make_activation(layer)
    if core is None and not (type(layer) is keras.layers.Activation and activation):
        # With a child it is no leaf: the ops that it calls are seen one by one.
        layer._modules["core"] = torch.nn.Identity()
        for variable in layer.trainable_variables:
            layer._parameters[variable.name] = variable.value
        return {}
    if core is not None:
        if share:
            share_parameters(core, layer)
        layer._modules["core"] = core
    if activation is not None:
        layer._modules["act"] = activation
    layer.__dict__["call"] = functools.partial(_call, layer, core, activation)
    return {} if core is None else {core: layer}


def _call_noise(noise: Noise, inputs: torch.Tensor, training: Any = None) -> Any:
    noise.training = bool(training)
    return noise(inputs)


def _call(
    layer: Any,
    core: torch.nn.Module | None,
    activation: torch.nn.Module | None,
    inputs: torch.Tensor,
    training: Any = None,
    mask: Any = None,
) -> torch.Tensor:
    """`layer.call` with the layer's modules."""
    if isinstance(layer, keras.layers.BatchNormalization):
        if mask is not None:
            raise ValueError(f"layer {layer.name!r}: masks are not supported")
        assert core is not None
        core.training = bool(training) and layer.trainable
    if isinstance(layer, keras.layers.Embedding) and inputs.is_floating_point():
        inputs = inputs.int()  # indices out of an Input of the default dtype
    x = inputs if core is None else core(inputs)
    if activation is not None:
        return activation(x)
    function = getattr(layer, "activation", None)
    return x if function is None else function(x)
