"""The walk over a graph that finds operations which do more than compute.

    scan = GraphScan(meta_graph, source, saved=["weights"])
    scan.check_import()
    scan.check_run(Run(["probabilities:0"], fed=["images:0"]))

`graph_safety` states the rules.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.types_pb2 import DT_RESOURCE, DT_VARIANT

from checkpointing.errors import CheckpointError
from checkpointing.graphs.op_policy import HARMLESS, PIPELINE, refusal

# All commands that load graphs have this flag.
TRUST_HINT = "pass --trust (in Python: trusted=True) only if you trust the author of the graph"

# Operations that read the file named by the input of this index.
_FILE_NAME_INPUT = {
    "Restore": 0,
    "RestoreSlice": 0,
    "RestoreV2": 0,
    "InitializeTableFromTextFile": 1,
    "InitializeTableFromTextFileV2": 1,
}
# Operations whose value is in the graph, by the attribute that holds its type.
_VALUE_TYPE = {"Const": "dtype", "HostConst": "dtype", "ParseTensor": "out_type"}
_READING = {"ReadVariableOp", "VarIsInitializedOp"}
_SHAPE_OPS = {"Shape", "ShapeN", "Rank", "Size"}
_PRINT_STREAMS = {b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)"}  # of PrintV2; others are files
# Calls that pass their inputs, from this index on, to a function. While is absent: its body may change them.
_FIRST_ARGUMENT = {"PartitionedCall": 0, "StatefulPartitionedCall": 0, "If": 1, "StatelessIf": 1}
_SET_BY_CALLER = ""  # stands for a variable's name that a function gets from its caller


class Run(NamedTuple):
    """The tensors of one call of `session.run`.

    fetched: names of tensors and operations.
    fed: names of tensors, which are not computed.
    file_names: the fed tensors that hold file names which the loader chooses.
    """

    fetched: Collection[str]
    fed: Collection[str] = ()
    file_names: Collection[str] = ()


class _Call(NamedTuple):
    """A called function, and the indices of its arguments that are file names fed by the loader."""

    function: str
    file_names: frozenset[int]


class GraphScan:
    """The nodes and functions of a graph by name, and the functions scanned so far."""

    def __init__(self, meta_graph: tf.compat.v1.MetaGraphDef, source: Path, saved: Collection[str]) -> None:
        """Index the graph.

        Args:
          meta_graph: the graph, not imported.
          source: its file, for messages.
          saved: names of the tensors by which variables are saved and restored.
        """
        self._source = source
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        library = meta_graph.graph_def.library
        self._functions = {function.signature.name: function for function in library.function}
        self._scanned: set[_Call] = set()
        self._registry = tf.Graph()
        self._saved = {operation_of(name) for name in saved}
        in_functions = [node for function in library.function for node in function.node_def]
        self._handles_by_shared_name = Counter(
            _shared_name(node) for node in (*self._nodes.values(), *in_functions) if node.op == "VarHandleOp"
        )
        # Functions that TensorFlow may run in place of others: gradients, and implementations of the same API.
        self._alternatives: dict[str, set[str]] = {
            each.function_name: {each.gradient_func} for each in library.gradient
        }
        by_api: dict[bytes, set[str]] = {}
        for name, function in self._functions.items():
            if "api_implements" in function.attr:
                by_api.setdefault(function.attr["api_implements"].s, set()).add(name)
        for names in by_api.values():
            for name in names:
                self._alternatives.setdefault(name, set()).update(names)

    def check_import(self) -> None:
        """Check the operations that TensorFlow may evaluate although nothing that runs depends on them."""
        bodies = [(name, function.node_def) for name, function in self._functions.items()]
        for function, nodes in [(None, self._nodes.values()), *bodies]:
            for node in nodes:
                if node.op in HARMLESS or node.op in self._functions or self._is_stateful(node.op):
                    continue
                is_spared = node.op == "MatchingFiles" or refusal(node.op) == PIPELINE
                if node.op == "ReadFile":
                    is_spared = function is not None or not self._is_evaluated(node)
                if not is_spared:
                    self._check_node(node, function, lambda _: False)

    def check_run(self, run: Run) -> None:
        """Check everything that the fetched tensors depend on."""
        fed = {_tensor(name) for name in run.fed}
        file_names = {_tensor(name) for name in run.file_names}
        pending = [name for name in run.fetched if _tensor(name) not in fed]
        reached: set[str] = set()

        def is_file_name(tensor: str) -> bool:
            return _comes_from(tensor, file_names, self._nodes, self._only_value)

        calls: list[_Call] = []
        while pending:
            name = operation_of(pending.pop())
            if name in reached or name not in self._nodes:  # a missing node is an error of the import
                continue
            reached.add(name)
            node = self._nodes[name]
            calls.extend(self._check_node(node, None, is_file_name))
            pending.extend(each for each in node.input if each.startswith("^") or _tensor(each) not in fed)
        self._check_functions(calls)

    def _check_functions(self, pending: list[_Call]) -> None:
        """Check the bodies of functions, and of those that they call."""
        while pending:
            call = pending.pop()
            if call in self._scanned:
                continue
            self._scanned.add(call)
            function = self._functions.get(call.function)
            if function is None:  # a gradient function that the graph does not define
                continue
            nodes = {node.name: node for node in function.node_def}
            arguments = function.signature.input_arg
            if any(each.number_attr or each.type_list_attr for each in arguments):
                arguments = []  # which input is which argument depends on attributes
            file_names = {_tensor(each.name) for index, each in enumerate(arguments) if index in call.file_names}

            def is_file_name(
                tensor: str,
                nodes: Mapping[str, tf.compat.v1.NodeDef] = nodes,
                file_names: Collection[str] = file_names,
            ) -> bool:
                return _comes_from(tensor, file_names, nodes)

            for node in function.node_def:
                pending.extend(self._check_node(node, call.function, is_file_name))

    def _check_node(
        self, node: tf.compat.v1.NodeDef, function: str | None, is_file_name: Callable[[str], bool]
    ) -> list[_Call]:
        """Check one node; return the functions that it calls.

        Raises:
          CheckpointError: it may not run.
        """
        calls: list[_Call] = []
        for name, direct in functions_called(node):
            if name in self._functions:  # TensorFlow rejects a graph whose function has the name of an operation
                first = 0 if name == node.op else _FIRST_ARGUMENT.get(node.op)
                passed = node.input[first:] if direct and first is not None else []
                file_names = frozenset(index for index, tensor in enumerate(passed) if is_file_name(tensor))
                calls.extend(_Call(each, file_names) for each in {name} | self._alternatives.get(name, set()))
                continue
            is_forged = name == node.op and _forges_handle(node)
            problem = "makes a handle out of bytes" if is_forged else refusal(name)
            if problem is not None and not (name == node.op and _is_allowed(node, is_file_name)):
                where = f"node {node.name}" + (f" of function {function}" if function else "")
                message = (
                    f"{self._source}: expected a graph that only computes, got operation {name} at {where}, which "
                    f"{problem}"
                )
                raise CheckpointError(message, hint=TRUST_HINT)
        return calls

    def _only_value(self, variable: str) -> str | None:
        """Return the only tensor that is ever assigned to a variable; None if there may be others."""
        node = self._nodes.get(variable)
        if node is None or node.op != "VarHandleOp" or variable in self._saved:
            return None
        if self._handles_by_shared_name[_shared_name(node)] != 1 or self._handles_by_shared_name[_SET_BY_CALLER]:
            return None
        consumers = [each for each in self._nodes.values() if variable in map(operation_of, each.input)]
        assignments = [each for each in consumers if each.op == "AssignVariableOp"]
        if len(assignments) != 1 or not {each.op for each in consumers} <= _READING | {"AssignVariableOp"}:
            return None
        handle, value = assignments[0].input[:2]
        return value if operation_of(handle) == variable else None

    def _is_evaluated(self, node: tf.compat.v1.NodeDef) -> bool:
        """Whether TensorFlow may evaluate a node during the import: the rules of its eval_const_tensor.cc."""
        pending, reached = [node], {node.name}
        while pending:
            each = pending.pop()
            if each.op in _SHAPE_OPS:  # the input's shape may be known
                continue
            data = [name for name in each.input if not name.startswith("^")]
            is_constant = each.op == "Const" or (data and each.op != "PlaceholderWithDefault")
            if not is_constant or each.op in self._functions or self._is_stateful(each.op):
                return False
            names = {operation_of(name) for name in data} - reached
            reached |= names
            pending.extend(self._nodes[name] for name in names if name in self._nodes)
        return True

    def _is_stateful(self, op: str) -> bool:
        try:
            return bool(self._registry.op_def_for_type(op).is_stateful)
        except RuntimeError:  # not registered
            return False


def functions_called(node: tf.compat.v1.NodeDef) -> Iterator[tuple[str, bool]]:
    """Yield the names of the functions that a node may call, and whether the node itself is the caller.

    These are its type, and the functions in its attributes. A function in the attributes of another function is called
    by that other function.
    """
    yield node.op, True
    attributes = [(value, True) for value in node.attr.values()]
    while attributes:
        value, direct = attributes.pop()
        kind = value.WhichOneof("value")
        for function in [value.func] if kind == "func" else value.list.func if kind == "list" else ():
            if function.name:
                yield function.name, direct
                attributes.extend((each, False) for each in function.attr.values())


def attribute(node: tf.compat.v1.NodeDef, name: str) -> AttrValue:
    """Return an attribute, empty if the node has none of that name; `node.attr[name]` would add it to the graph."""
    return node.attr[name] if name in node.attr else AttrValue()


def operation_of(name: str) -> str:
    """Return the operation's name from that of a tensor or of a control input."""
    return name.removeprefix("^").partition(":")[0]


def _tensor(name: str) -> str:
    """Return a tensor's full name; the name of an operation stands for its first output."""
    return name if ":" in name else f"{name}:0"


def _is_allowed(node: tf.compat.v1.NodeDef, is_file_name: Callable[[str], bool]) -> bool:
    """Whether a node may run although operations of its type are refused in general."""
    if node.op == "PrintV2":  # to standard error, unless it names another stream
        return "output_stream" not in node.attr or attribute(node, "output_stream").s in _PRINT_STREAMS
    index = _FILE_NAME_INPUT.get(node.op)
    return index is not None and index < len(node.input) and is_file_name(node.input[index])


def _shared_name(variable: tf.compat.v1.NodeDef) -> str:
    """Return the name by which variable handles share one value."""
    shared_name = attribute(variable, "shared_name")
    return _SET_BY_CALLER if shared_name.placeholder else os.fsdecode(shared_name.s) or variable.name


def _forges_handle(node: tf.compat.v1.NodeDef) -> bool:
    """Whether a node's value, which is in the graph, is of a type that only other operations should make: a handle."""
    if node.op not in _VALUE_TYPE:
        return False
    dtype = attribute(node, _VALUE_TYPE[node.op])
    return bool(dtype.placeholder) or dtype.type in (DT_RESOURCE, DT_VARIANT)


def _comes_from(
    tensor: str,
    file_names: Collection[str],
    nodes: Mapping[str, tf.compat.v1.NodeDef],
    only_value: Callable[[str], str | None] = lambda _: None,
) -> bool:
    """Whether a tensor is one of `file_names`, an Identity of one, or read from a variable that only ever holds one."""
    seen = set()
    while _tensor(tensor) not in file_names:
        node = nodes.get(operation_of(tensor))
        if tensor.startswith("^") or node is None or node.name in seen or not node.input:
            return False
        seen.add(node.name)
        before = only_value(operation_of(node.input[0])) if node.op == "ReadVariableOp" else None
        if node.op == "Identity":
            before = node.input[0]
        if before is None:
            return False
        tensor = before
    return True
