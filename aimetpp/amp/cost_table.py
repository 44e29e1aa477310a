# SPDX-License-Identifier: BSD-3-Clause
"""A user's cost per op and precision, such as measured latencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimetpp.amp.arguments import check_cost
from aimetpp.common.precision import precision_name

# op, activation, param or None, cost
CostRow = tuple[str, str, str | None, float]


def parse_cost_table(table: Any) -> list[CostRow]:
    """Rows of a mapping {(op, activation, param): cost}.

    Args:
        table: op is a name ("layer1.0.conv1", "/add_0"), an ONNX type ("Conv") or a
            kind ("conv2d"); precisions in any spelling; param is None for an op
            without a weight.

    Raises:
        TypeError: not a mapping, a key of another form, a cost that is no number.
        ValueError: an unknown precision, a cost that is negative or not finite.
    """
    if not isinstance(table, Mapping):
        raise TypeError(
            "cost_table must be a dict from (op, activation, param) to a cost, got "
            f"{type(table).__name__}"
        )
    rows: list[CostRow] = []
    for key, cost in table.items():
        whole = isinstance(key, tuple) and len(key) == 3 and isinstance(key[0], str)
        if not whole:
            raise TypeError(
                "cost_table: keys must be (op, activation, param), got " + repr(key)
            )
        where = f"cost_table[{key!r}]"
        check_cost(cost, where)
        op, activation, param = key
        rows.append(
            (
                op,
                precision_name(activation, where),
                None if param is None else precision_name(param, where),
                float(cost),
            )
        )
    return rows
