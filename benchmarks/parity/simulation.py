# SPDX-License-Identifier: BSD-3-Clause
"""Encodings of a whole simulation: aimet-torch's and aimetpp's, side by side.

One model, one set of weights and one set of inputs, made by arithmetic alone
(`parity_data.values`); both packages quantize it by aimetpp's default config. Run by
either package's interpreter:

    python benchmarks/parity/simulation.py write tests/golden/simulation.json
    python benchmarks/parity/simulation.py compare tests/golden/simulation.json

`write` takes aimet-torch (2.42.0 was used), `compare` aimetpp. To do both, with
aimet-torch in an environment of its own, see benchmarks/parity/run.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from parity_data import batch, values

SCHEMES = {"min_max": "tf", "tf_enhanced": "tf_enhanced"}  # ours: aimet-torch's
BITWIDTHS = ((8, 8), (16, 16), (8, 4), (4, 8))  # activations, parameters
CONFIG = Path(__file__).parents[2] / "aimetpp" / "configs"


class Model(torch.nn.Module):
    """Convolutions of each kind, a fused ReLU, one that stands alone, a linear
    layer: modules only, which both packages quantize.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = torch.nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.act = torch.nn.Sigmoid()
        self.flatten = torch.nn.Flatten()
        self.head = torch.nn.Linear(6 * 8 * 8, 10)
        for seed, parameter in enumerate(self.parameters()):
            entry = batch(list(parameter.shape), 100 + seed, "bell", 0.3)
            parameter.data.copy_(values(entry))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [n, 3, 4, 4]; returns [n, 10]."""
        x = self.depthwise(self.relu(self.conv(x)))
        return self.head(self.flatten(self.act(self.up(x))))


def inputs() -> list[torch.Tensor]:
    """Three batches of growing range."""
    return [
        values(batch([4, 3, 4, 4], 200 + i, "bell", scale, shift))
        for i, (scale, shift) in enumerate(((1.0, 0.2), (1.7, 0.0), (0.6, -0.1)))
    ]


def collected(model: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """What every quantizer of a quantized model chose, by "module.kind.key"."""
    found = {}
    for name, module in model.named_modules():
        for kind in ("input", "output", "param"):
            quantizers = getattr(module, f"{kind}_quantizers", None)
            if quantizers is None:
                continue
            for key, quantizer in dict(quantizers._modules).items():
                if quantizer is None or quantizer.get_scale() is None:
                    continue
                found[f"{name}.{kind}.{key}"] = {
                    "scale": quantizer.get_scale().flatten().tolist(),
                    "offset": quantizer.get_offset().flatten().tolist(),
                }
    return found


def simulate(
    package: Any, scheme: str, activation: int, param: int, config: str
) -> Any:
    """The encodings that a package's QuantizationSimModel gives the model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        content = json.loads((CONFIG / f"{config}.json").read_text())
        path.write_text(json.dumps(spelled_out(content)))
        sim = package(
            Model().eval(),
            inputs()[0],
            quant_scheme=scheme,
            default_output_bw=activation,
            default_param_bw=param,
            config_file=str(path),
        )
    sim.compute_encodings(lambda model: [model(x) for x in inputs()])
    return collected(sim.model)


def spelled_out(content: Any) -> Any:
    """A config with its booleans as the strings that aimet-torch takes."""
    if isinstance(content, dict):
        return {key: spelled_out(value) for key, value in content.items()}
    if isinstance(content, list):
        return [spelled_out(value) for value in content]
    return str(content) if isinstance(content, bool) else content


def cases() -> list[tuple[str, int, int, str]]:
    """(scheme, activation bits, parameter bits, config)."""
    return [
        (scheme, activation, param, config)
        for scheme in SCHEMES
        for activation, param in BITWIDTHS
        for config in ("default", "default_per_tensor")
    ]


def write(path: Path) -> int:
    """Writes what aimet-torch chooses."""
    import aimet_torch
    from aimet_torch.quantsim import QuantizationSimModel

    results = [
        {
            "scheme": scheme,
            "activation": activation,
            "param": param,
            "config": config,
            "encodings": simulate(
                QuantizationSimModel, SCHEMES[scheme], activation, param, config
            ),
        }
        for scheme, activation, param, config in cases()
    ]
    producer = f"aimet-torch {aimet_torch.__version__}, torch {torch.__version__}"
    lines = ",\n".join(json.dumps(result) for result in results)
    path.write_text(f'{{"producer": "{producer}", "results": [\n{lines}\n]}}\n')
    return 0


def compare(path: Path) -> int:
    """Prints where aimetpp differs from the file; 1 where parameters do."""
    from aimetpp.quantsim import QuantizationSimModel

    worst = 0
    for result in json.loads(path.read_text())["results"]:
        ours = simulate(
            QuantizationSimModel,
            result["scheme"],
            result["activation"],
            result["param"],
            result["config"],
        )
        theirs = result["encodings"]
        title = f"{result['scheme']} A{result['activation']}W{result['param']}"
        print(f"{title}, {result['config']}: {len(theirs)} quantizers")
        for name in sorted({*ours, *theirs}):
            line = difference(ours.get(name), theirs.get(name))
            if line:
                print(f"  {name}: {line}")
                worst = max(worst, int(".param." in name))
    return worst


def difference(ours: Any, theirs: Any) -> str:
    """Empty where two encodings are equal to the last bit."""
    if ours is None or theirs is None:
        return f"only in {'aimet-torch' if ours is None else 'aimetpp'}"
    if ours == theirs:
        return ""
    pairs = zip(ours["scale"], theirs["scale"], strict=True)
    relative = max(abs(a / b - 1) for a, b in pairs)
    steps = zip(ours["offset"], theirs["offset"], strict=True)
    return f"scale by {relative:.1e}, offset by {max(abs(a - b) for a, b in steps):g}"


def main(arguments: list[str]) -> int:
    """See the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    args = parser.parse_args(arguments)
    return write(args.file) if args.action == "write" else compare(args.file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
