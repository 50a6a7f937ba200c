"""What a `.pt2` archive may hold: tensors, sizes and torch's own operators on them, nothing that is run to be read.

torch's own reader is not safe on a file from elsewhere. Tried on torch 2.15, each of these ran code of the file's
choice: a weight, a constant or an object that is marked as pickled, the example inputs, the weights of an older format,
and the text of a symbolic size, which sympy evaluates. A call signature may name a module to be imported. So an archive
is checked here before torch sees it; what `chase.exporters.torch_export` writes holds none of this.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable
from typing import Any

import torch

from chase.errors import CheckpointError
from chase.program import ARITHMETIC, FORBIDDEN

MEMBERS = re.compile(
    r"archive_(format|version)|byteorder|\.?data/(version|serialization_id)|version|\.format_version"
    r"|\.storage_alignment|models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
)
EXAMPLES = "data/sample_inputs/model.pt"
BLOCKS = ("torch.ops.higher_order.wrap_with_set_grad_enabled", "torch.ops.higher_order.wrap_with_autocast")
_SIZES = (
    "Symbol Integer Float Rational Add Mul Pow Mod Max Min floor ceiling FloorDiv ModularIndexing Where PythonMod "
    "CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat "
    "TruncToInt RoundToInt RoundDecimal ToFloat Identity Equality Unequality StrictLessThan LessThan "
    "StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge And Or Not true false"
)
SIZES = frozenset(_SIZES.split())
"""The functions that the text of a size may call."""
NOTES = frozenset({"stack_trace", "nn_module_stack", "torch_fn"})
"""What nodes may carry beside the operator: text that is only split."""
_SYNTAX = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword),
    *(ast.UnaryOp, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult),
)


def check_archive(file: io.BytesIO) -> None:
    """Refuse an archive that could do more than compute with tensors.

    Raises:
        CheckpointError: if it could; the message says what it holds, to be read after the file's name.
    """
    reader = torch._C.PyTorchFileReader(file)  # the reader that torch will use, so that both see the same
    names = reader.get_all_records()
    for name in names:
        if not MEMBERS.fullmatch(name):
            raise _refused(f"the member {name!r}")
    if EXAMPLES in names and reader.get_record_size(EXAMPLES):
        raise _refused("example inputs, which are pickled")
    for name in names:
        if name.endswith(".json"):
            _check(json.loads(reader.get_record(name)))


def _refused(what: str) -> CheckpointError:
    return CheckpointError(f"holds {what}: a program of torch.export may hold tensors and operators only")


def _check(value: Any) -> None:
    """Apply RULES to every entry of a JSON document, however deep."""
    if isinstance(value, list):
        for each in value:
            _check(each)
    elif isinstance(value, dict):
        for name, entry in value.items():
            if name in RULES and not RULES[name](entry):
                raise _refused(f"{name} {str(entry)[:80]!r}")
            _check(entry)


def _is_empty(value: Any) -> bool:
    return not value


def _is_operator(name: Any) -> bool:
    """Whether it is torch's operator on tensors or sizes."""
    if name in BLOCKS or name in {f"_{known}" if known.startswith("operator.") else known for known in ARITHMETIC}:
        return True
    parts = str(name).split(".")
    if len(parts) != 5 or parts[:3] != ["torch", "ops", "aten"] or parts[3] in FORBIDDEN:
        return False
    return isinstance(getattr(getattr(torch.ops.aten, parts[3], None), parts[4], None), torch._ops.OpOverload)


def _is_size(text: Any) -> bool:
    """Whether it is arithmetic with numbers and symbols."""
    try:
        nodes = list(ast.walk(ast.parse(str(text), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, _SYNTAX) and _is_plain(node) for node in nodes)


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in SIZES or re.fullmatch(r"[su]\d+", node.id) is not None
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float) or re.fullmatch(r"\w+", str(node.value)) is not None
    return True


def _is_signature(text: Any) -> bool:
    """Whether it describes tuples, lists and dictionaries of tensors."""
    types = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
    todo = [json.loads(text)[1]]
    while todo:
        spec = todo.pop()
        if spec["type"] not in types or spec["context"] not in (None, "null", "[]"):
            return False
        todo += spec["children_spec"]
    return True


def _are_notes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= NOTES


RULES: dict[str, Callable[[Any], bool]] = {
    "use_pickle": _is_empty,
    "custom_obj": _is_empty,
    "custom_obj_values": _is_empty,
    "as_custom_obj": _is_empty,
    "as_operator": _is_empty,
    "guards_code": _is_empty,
    "treespec_namedtuple_fields": _is_empty,
    "target": _is_operator,
    "expr_str": _is_size,
    "in_spec": _is_signature,
    "out_spec": _is_signature,
    "metadata": _are_notes,
}
"""What an entry of this name must be."""
