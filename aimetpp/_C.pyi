# SPDX-License-Identifier: BSD-3-Clause
# The bindings of csrc/python/module.cpp. Precisions are names ("int8", "fp16",
# "bf16", "fp32" for off); index fields are -1 where there is no such thing.

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

torch_version: str

class Call:
    module: str
    ordinal: int
    functional: bool
    type: str
    source: str
    name: str
    def __init__(
        self, module: str, ordinal: int, functional: bool, type: str, source: str
    ) -> None: ...

class MaskFacts:
    only_masks: bool

def classify_mask(tensor: torch.Tensor, negated: bool = False) -> MaskFacts: ...

class Site:
    id: int
    kind: str
    call: int
    slot: int
    param: str
    def __init__(
        self,
        id: int,
        kind: str,
        call: int,
        slot: int,
        param: str,
        mask: MaskFacts = ...,
    ) -> None: ...

class Param:
    site: int
    name: str
    shape: list[int]

class Tensor:
    origin: str
    producer: int
    model_input: int
    is_model_output: bool
    is_floating: bool
    shape: list[int]
    uses: list[tuple[int, int]]

class Op:
    kind: str
    onnx_type: str
    role: str
    call: int
    name: str
    source: str
    inputs: list[int]
    input_sites: list[int]
    outputs: list[int]
    output_sites: list[int]
    params: list[Param]
    macs: int

class OpGraph:
    calls: list[Call]
    sites: list[Site]
    ops: list[Op]
    tensors: list[Tensor]
    model_inputs: list[int]
    model_outputs: list[int]
    def site_name(self, site: int) -> str: ...
    def op_of_site(self, site: int) -> int: ...
    def tensor_of_site(self, site: int) -> int: ...
    def value_source(self, tensor: int) -> int: ...
    def to_text(self) -> str: ...

class Activation:
    name: str

class NormalizedInput:
    layer: int
    batch_norm: int
    activation: Activation

class EqualizableChain:
    layers: list[int]
    between: list[list[int]]

class QuantConfig: ...

class QuantizerSpec:
    precision: str
    symmetric: bool
    strict_symmetric: bool
    unsigned_symmetric: bool
    channel_axis: int
    constraints: tuple[float | None, float | None]
    masked_below: float | None
    kind: str
    sites: list[int]

class Placement:
    quantizers: list[QuantizerSpec]
    quantizer_of_site: list[int]
    def rules(self, site: int) -> list[tuple[str, str, str]]: ...

class IntegerBias:
    op: int
    site: int
    input: int
    factor: float
    weight: int

class Statistics:
    empty: bool
    @staticmethod
    def for_scheme(
        num_channels: int, scheme: str, first_updates: int = 1
    ) -> Statistics: ...
    def update(self, tensor: torch.Tensor, channel_axis: int | None = None) -> None: ...
    num_bytes: int
    def __eq__(self, other: object) -> bool: ...
    def merge(self, other: Statistics) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(state: bytes) -> Statistics: ...

class Encoding:
    scale: float
    offset: int
    min: float
    max: float

class QuantizerGroup:
    name: str
    activation_quantizers: list[int]
    param_quantizers: list[int]
    ops: list[int]

class CostModel:
    def bit_ops(self, precisions: Sequence[str]) -> float: ...
    def cost(self, precisions: Sequence[str]) -> float: ...

class MemoryModel:
    def weight_bytes(self, precisions: Sequence[str]) -> float: ...
    def activation_bytes(self, precisions: Sequence[str]) -> float: ...

class Sensitivity:
    group: int
    candidate: int
    score: float
    bit_ops_reduction: float

class FrontPoint:
    relative_bit_ops: float
    score: float
    group: int
    candidate: int
    assignment: list[int]
    dominated: bool

class SkippedStep:
    relative_bit_ops: float
    group: int
    candidate: int
    lowest: float
    highest: float

class SearchOptions:
    def __init__(
        self,
        allowed_drop: float | None,
        algo: int,
        reverse: bool = False,
        max_steps: int | None = None,
    ) -> None: ...

class SearchResult:
    fp32_score: float
    baseline_score: float
    final_score: float
    baseline_candidate: int
    sensitivities: list[Sensitivity]
    walk: list[FrontPoint]
    points: list[FrontPoint]
    skipped: list[SkippedStep]
    chosen: int
    final_assignment: list[int]
    target: float
    stop_reason: str
    evaluations: int

class OpList:
    def __init__(self, ops: Sequence[int]) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...

class Request:
    def __init__(
        self,
        target: str,
        subject: str,
        source: str,
        ops: Iterable[int],  # an OpList, or a list
        activations: Sequence[str | None],
        params: dict[str, str],
        ports: Sequence[Sequence[tuple[int, int]]] = ...,
        results: Sequence[int] = ...,
    ) -> None: ...

class SearchProblem:
    def __init__(
        self,
        candidates: Sequence[tuple[str, str]],
        groups: Sequence[dict[str, object]],
        cost_model: CostModel,
        fixed_precisions: Sequence[str],
    ) -> None: ...

class ConvertPoint:
    tensor: str
    elements: int
    from_quantizer: int
    to_quantizers: list[int]

class ConvertSolution:
    alpha: float
    assignment: list[int]
    convert_cost: float
    relative_cost: float
    within_budget: bool
    gap: float

class ReportLine:
    request: int
    subject: str
    detail: str
    facts: dict[str, Any]

class ReportRow:
    depth: int
    requests: str
    subject: str
    detail: str

class Change:
    quantizer: int
    before: str
    after: str
    request: int

class Resolution:
    precisions: list[str]
    changes: list[Change]
    reached: list[int]
    bit_ops_before: float
    bit_ops_after: float

class ResolutionReport:
    requests: list[ReportLine]
    inferred: list[ReportLine]
    propagated: list[ReportLine]
    realized: list[ReportLine]
    overruled: list[ReportLine]
    unchanged: list[ReportLine]

class NarrowFloat:
    name: str
    bitwidth: int
    exponent_bits: int
    mantissa_bits: int
    saturates: bool
    largest: float

def narrow_floats() -> list[NarrowFloat]: ...
def parse_precision(name: str) -> str: ...
def integer_grid(bitwidth: int, symmetry: str) -> tuple[int, int]: ...
def encoding_of_range(
    min: float, max: float, bitwidth: int, symmetry: str
) -> Encoding: ...
def op_role(kind: str) -> str: ...
def canonical_kind(name: str) -> str: ...
def read_graph(
    ir: object, calls: list[Call], sites: list[Site], num_inputs: int
) -> OpGraph: ...

class OnnxValue:
    def __init__(
        self,
        name: str,
        origin: str,
        is_floating: bool,
        shape: list[int] | None,
        number: float | None,
    ) -> None: ...

class OnnxNode:
    def __init__(
        self,
        name: str,
        op_type: str,
        inputs: list[int],
        outputs: list[int],
        captured: list[int],
        numbers: dict[str, int],
        texts: dict[str, str],
        masks: list[MaskFacts],
    ) -> None: ...

def read_onnx_graph(
    values: list[OnnxValue],
    nodes: list[OnnxNode],
    inputs: list[int],
    outputs: list[int],
) -> tuple[OpGraph, list[tuple[int, int]]]: ...
def foldable_batch_norms(graph: OpGraph) -> list[tuple[int, int]]: ...
def forward_foldable_batch_norms(graph: OpGraph) -> list[tuple[int, int]]: ...
def following_activation(graph: OpGraph, op: int) -> Activation: ...
def normalized_inputs(graph: OpGraph) -> list[NormalizedInput]: ...
def equalizable_chains(
    graph: OpGraph,
    replace_relu6: bool,
    transparent: Sequence[int],
    excluded: Sequence[int],
) -> list[EqualizableChain]: ...
def parse_quant_config(text: str, origin: str) -> QuantConfig: ...
def place_quantizers(
    graph: OpGraph, config: QuantConfig, activation: str, param: str
) -> Placement: ...
def quantizer_of_input(
    graph: OpGraph, placement: Placement, op: int, slot: int
) -> int: ...
def quantizer_covering(graph: OpGraph, placement: Placement, site: int) -> int: ...
def content_hash(tensor: torch.Tensor) -> int: ...

# The ops without the way through torch.ops; None where that has to be taken.
def fake_quantize(
    x: torch.Tensor,
    min: torch.Tensor,
    max: torch.Tensor,
    grid: torch.Tensor,
    symmetric: bool,
    channel_axis: int | None,
    /,
) -> torch.Tensor | None: ...
def fake_quantize_(
    x: torch.Tensor,
    min: torch.Tensor,
    max: torch.Tensor,
    grid: torch.Tensor,
    symmetric: bool,
    channel_axis: int | None,
    /,
) -> torch.Tensor | None: ...
def integer_biases(graph: OpGraph, placement: Placement) -> list[IntegerBias]: ...
def find_grid_steps(matrix: torch.Tensor, bitwidth: int) -> torch.Tensor: ...
def ranges_from_statistics(
    statistics: Statistics,
    scheme: str,
    bitwidth: int,
    symmetry: str,
    percentile: float,
) -> tuple[torch.Tensor, torch.Tensor]: ...
def power_of_two_ranges(
    statistics: Statistics, bitwidth: int, symmetry: str
) -> tuple[torch.Tensor, torch.Tensor]: ...
def build_groups(graph: OpGraph, placement: Placement) -> list[QuantizerGroup]: ...
def supported_candidates(
    group: QuantizerGroup,
    graph: OpGraph,
    placement: Placement,
    candidates: Sequence[tuple[str, str]],
    use_all: bool,
    pinned: dict[int, str] = ...,
) -> list[int]: ...
def build_cost_model(graph: OpGraph, placement: Placement) -> CostModel: ...
def build_table_cost_model(
    graph: OpGraph,
    placement: Placement,
    rows: Sequence[tuple[str, str, str | None, float]],
) -> CostModel: ...
def build_memory_model(graph: OpGraph, placement: Placement) -> MemoryModel: ...
def greedy_search(
    problem: SearchProblem,
    options: SearchOptions,
    evaluate: Callable[[str, list[int]], float],
    progress: Callable[[str, int, int], None] | None = None,
    known: Callable[[str, list[int]], float | None] | None = None,
    prepare: Callable[[str, list[list[int]]], None] | None = None,
    metrics: dict[str, str] = ...,
) -> SearchResult: ...
def narrowing_search(
    problem: SearchProblem,
    allowed_drop: float | None,
    skip_breaking: bool,
    max_narrowed: int | None,
    evaluate: Callable[[str, list[int]], float],
    progress: Callable[[str, int, int], None] | None = None,
    known: Callable[[str, list[int]], float | None] | None = None,
    prepare: Callable[[str, list[list[int]]], None] | None = None,
    metrics: dict[str, str] = ...,
) -> SearchResult: ...
def count_evaluations(
    problem: SearchProblem, options: SearchOptions
) -> dict[str, tuple[int, int]]: ...
def list_evaluations(problem: SearchProblem, phase: str) -> list[list[int]]: ...
def count_reference_evaluations(
    problem: SearchProblem, options: SearchOptions
) -> dict[str, tuple[int, int]]: ...
def find_convert_points(graph: OpGraph, placement: Placement) -> list[ConvertPoint]: ...
def convert_cost(
    points: Sequence[ConvertPoint],
    precisions: Sequence[str],
    table: Mapping[tuple[str, str], float],
) -> float: ...
def reduce_convert_ops(
    problem: SearchProblem,
    points: Sequence[ConvertPoint],
    table: Mapping[tuple[str, str], float],
    start: Sequence[int],
    alphas: Sequence[float],
) -> list[ConvertSolution]: ...
def resolve_requests(
    graph: OpGraph,
    placement: Placement,
    current: Sequence[str],
    requests: Sequence[Request],
    strict: bool,
) -> Resolution: ...
def find_unsupported_ops(
    graph: OpGraph, placement: Placement, precisions: Sequence[str]
) -> list[tuple[int, str]]: ...
def report_of(
    graph: OpGraph,
    placement: Placement,
    requests: Sequence[Request],
    resolution: Resolution,
) -> ResolutionReport: ...
def resolution_text(
    resolution: Resolution, report: ResolutionReport, notes: Sequence[str] = ...
) -> str: ...
def rows_of_section(report: ResolutionReport, section: str) -> list[ReportRow]: ...
def summary_of(resolution: Resolution, report: ResolutionReport) -> list[str]: ...

class WeightCache:
    bytes: int
    keep: str
    def __init__(self) -> None: ...
    def get(
        self, name: str, quantizer: torch.nn.Module, parameter: torch.Tensor
    ) -> torch.Tensor: ...
    def find_made(
        self,
        name: str,
        parameter: torch.Tensor,
        *quantizers: torch.nn.Module | None,
    ) -> torch.Tensor | None: ...
    def get_made(
        self,
        name: str,
        sources: list[torch.Tensor],
        make: Callable[[], torch.Tensor],
    ) -> torch.Tensor: ...
    def clear(self) -> None: ...

def release_scratch() -> None: ...
def return_free_memory() -> None: ...

class ReplayMismatch(BaseException): ...

class ActivationStore:
    budget: int
    bytes: int
    peak_bytes: int
    num_refused: int
    def __init__(self, budget: int, left_out: frozenset[str]) -> None: ...

class Recording:
    num_replayed: int
    differs: bool
    inputs_written: bool
    num_strays: int
    def __init__(
        self, store: ActivationStore, num_calls: int, inputs: Sequence[torch.Tensor]
    ) -> None: ...
    def forget(self, calls: Sequence[int]) -> None: ...
    def begin(self, changed: Sequence[int], keep_changed: bool) -> None: ...
    def call(
        self,
        index: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        compute: Callable[[], Any],
        module: torch.nn.Module | None,
    ) -> Any: ...
    def note_read(self, value: Any) -> None: ...
    def note_exposed(self, value: Any) -> None: ...
    def end(self) -> None: ...
    def clear(self) -> None: ...
    def holds(self, tensor: torch.Tensor) -> bool: ...

def downstream_calls(
    graph: OpGraph, placement: Placement, quantizers: Sequence[int]
) -> list[int]: ...
def modules_of(
    model: torch.nn.Module, left_out: frozenset[str]
) -> list[torch.nn.Module]: ...
def modules_in_training(model: torch.nn.Module) -> list[torch.nn.Module]: ...
def model_stamp(model: torch.nn.Module, left_out: frozenset[str]) -> int: ...
def code_state(modules: Sequence[torch.nn.Module], left_out: frozenset[str]) -> int: ...
def numeric_settings() -> int: ...
def quantizer_stamps(slots: list[list[tuple[Any, str]]]) -> list[int]: ...
def register_quantizer(cls: type, global_hooks: tuple[Any, ...]) -> None: ...
def register_run_time(
    run_quantized: Callable[..., Any],
    quantize_results: Callable[..., Any],
    leaf_call: Callable[..., Any],
) -> None: ...
def leaf_call(
    leaf: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    call: int,
    frames: list[Any],
    mode: Any,
) -> Any: ...
def functional_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: list[Any],
    outputs: list[Any],
    overwrites: int | None,
    name: str,
) -> Any: ...
