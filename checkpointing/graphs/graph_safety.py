"""Refuses graphs that could do more than compute: files, network, Python, other processes.

    graph_safety.check(meta_graph, path, graph_safety.signature_runs(meta_graph))

A TensorFlow graph is a program: WriteFile writes any file, ReadFile reads one, PyFunc calls Python. A graph from a file
(`.meta`, SavedModel) is therefore scanned before TensorFlow sees it. The rules:

1. Only operations known to be harmless may run (`harmless_ops`). Every other one is refused, also one that a later
   TensorFlow adds.
2. Scanned is what this package runs: the Saver's restore operation, the variables, the initialiser of a SavedModel, and
   the outputs of the signatures (or the tensors that the user names); with everything that they depend on through data
   and control inputs, and the whole bodies of all functions called, nested ones included. A tensor that is fed ends the
   walk. So the SaveV2 of every graph with variables, and the readers and queues of a training graph, do no harm as long
   as nothing that runs depends on them.
3. Reading a file is allowed where the loader feeds its name: the checkpoint's prefix to the restore operation, the path
   of an asset to the initialiser. It may come through an Identity, the argument of a function, and a variable to which
   nothing else is ever assigned, which is how tf.saved_model.save keeps the path of an asset. A name that the graph
   itself holds is refused, and so are constants that forge the handle of a variable.
4. TensorFlow evaluates stateless operations by itself, whether anything that is run depends on them or not: for the
   shapes when it imports a graph, and to fold constants when it optimises one, even upstream of a tensor that is fed.
   So a stateless operation that does harm (DebugIdentity writes a file) is refused anywhere in the graph and its
   functions. Spared are those that training graphs often have and that only read: MatchingFiles, input pipelines, and
   ReadFile where the name of the file is not a constant.

What this does not protect from: a graph can use all memory and time, and use a bug in a kernel.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.types_pb2 import DT_RESOURCE, DT_VARIANT
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

from checkpointing.errors import CheckpointError, reason
from checkpointing.graphs.harmless_ops import HARMLESS

_PIPELINE = "belongs to an input pipeline"

# Families of operations that are refused, and what they do; at most one of them matches a name.
REFUSED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"WriteFile|Save(Slices|V2)?|MergeV2Checkpoints|DistributedSave|DumpTensor", "writes files"),
        (r"CalibrationStatisticsSaver|CustomAggregator|StoreMinibatchStatisticsInFdo", "writes files"),
        (
            r"(Flush|Close)?SummaryWriter|CreateSummary\w+Writer|Write\w+Summary|WriteSummary|ImportEvent",
            "writes files",
        ),
        (r"PrintV2", "writes to the file that it names"),  # allowed where it names none
        (r"Debug\w+|Copy(Host)?", "writes to files or network addresses"),
        (r"ReadFile|MatchingFiles|Restore(Slice|V2)?|InitializeTableFromTextFile(V2)?|RecordInput", "reads files"),
        (r"ImmutableConst|LoadAndRemapMatrix|GenerateVocabRemapping|FixedUnigramCandidateSampler", "reads files"),
        (r"Skipgram|DecodeProtoV2|EncodeProto", "reads files"),
        (r"(TextLine|FixedLengthRecord|TFRecord|LMDB|WholeFile|Identity)Reader(V2)?|Reader[A-Z]\w+", "reads files"),
        (r"\w*(Dataset|Iterator)\w*|\w*StatsAggregator\w*|\w*ThreadPoolHandle", _PIPELINE),
        (
            r"(Anonymous|Dummy|Delete)(MemoryCache|(Random)?SeedGenerator|IterationCounter)",
            _PIPELINE,
        ),
        (r"FileSystemSetConfiguration", "changes how files are opened"),
        (r"(Eager)?PyFunc(Stateless)?", "calls Python"),
        (r"Rpc\w+|DeleteRpcFutureResource|RemoteCall|Send|Recv|Collective\w+|Nccl\w+", "uses the network"),
        (
            r"AllToAll|CrossReplicaSum|(Infeed|Outfeed)\w+|DTensor\w+|CopyToMesh(Grad)?|Relayout(Like)?",
            "uses other devices",
        ),
        (r"(?!_|Xla|DTensor)\w*(TPU|Tpu)\w*|Prelinearize(Tuple)?|WorkerHeartbeat", "uses other devices"),
        (r"Xla\w+|\w+Xla(Split|Concat)ND", "calls another compiler"),
        (r"Abort", "ends the process"),
        (r"_\w+", "is internal to TensorFlow"),
    )
)
_UNKNOWN = "is not on the list of harmless operations"
_FORGES = "makes a handle out of bytes"
ADVICE = "pass --trust if you trust the author of the graph"

# Operations that read the file named by this input, which the loader may feed.
_NAME_INPUT = {
    "Restore": 0,
    "RestoreSlice": 0,
    "RestoreV2": 0,
    "InitializeTableFromTextFile": 1,
    "InitializeTableFromTextFileV2": 1,
}
# Operations whose value is in the graph, by the attribute that holds its type.
_VALUE_TYPE = {"Const": "dtype", "HostConst": "dtype", "ParseTensor": "out_type"}
_OPEN = ""  # the name of a variable that a function gets from its caller
_READING = {"ReadVariableOp", "VarIsInitializedOp"}
_OF_SHAPES = {"Shape", "ShapeN", "Rank", "Size"}
_STREAMS = {b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)"}  # of PrintV2, that are no files
# Calls that pass their inputs on to a function, from this input on. A loop's body may change them, so While is absent.
_FIRST_ARGUMENT = {"PartitionedCall": 0, "StatefulPartitionedCall": 0, "If": 1, "StatelessIf": 1}

_VARIABLES = ("variables", "saveable_objects")  # the collections that a Saver saves and restores by default
_INITIALISERS = ("saved_model_main_op", "legacy_init_op")
_INIT_SIGNATURE, _TRAIN_SIGNATURE = "__saved_model_init_op", "__saved_model_train_op"
_ASSETS = "saved_model_assets"


class Run(NamedTuple):
    """A call of `session.run`, as far as it concerns the scan.

    fetched: names of tensors and operations.
    fed: names of tensors, which are not computed.
    file_names: those of the fed tensors that hold the names of files, which are of the loader's choice.
    """

    fetched: Collection[str]
    fed: Collection[str] = ()
    file_names: Collection[str] = ()


class _Called(NamedTuple):
    """A function and which of its arguments are file names that the loader feeds."""

    name: str
    file_names: frozenset[int]


def refusal(op: str) -> str | None:
    """What speaks against running operations of this type; None where they are harmless."""
    if op in HARMLESS:
        return None
    return next((what for pattern, what in REFUSED if pattern.fullmatch(op)), _UNKNOWN)


def check(meta_graph: tf.compat.v1.MetaGraphDef, source: Path, runs: Iterable[Run]) -> None:
    """Checks that importing a graph, loading its state and running it does nothing but compute.

    Args:
      meta_graph: the graph, not imported yet.
      source: its file, for messages.
      runs: what will be run besides what loads it, as in `signature_runs(meta_graph)`.

    Raises:
      CheckpointError: it can do more; the message names operation and node.
    """
    try:
        scan, loading = _Scan(meta_graph, source), list(_loading(meta_graph, source))
    except DecodeError as error:
        raise CheckpointError(f"{source}: its collections are damaged ({reason(error)}).") from error
    scan.check_import()
    for run in (*loading, *runs):
        scan.check_run(run)


def check_assets(meta_graph: tf.compat.v1.MetaGraphDef, directory: Path, source: Path) -> None:
    """Checks that the assets of a graph lie in a directory: an export copies them, and may be published.

    Raises:
      CheckpointError: one lies elsewhere.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    key = tf.compat.v1.GraphKeys.ASSET_FILEPATHS
    for name in meta_graph.collection_def[key].node_list.value if key in meta_graph.collection_def else ():
        node = nodes.get(_operation(name))
        for content in _attribute(node, "value").tensor.string_val if node is not None else ():
            path = Path(os.fsdecode(content))
            if not path.resolve().is_relative_to(directory.resolve()):
                raise CheckpointError(
                    f"{source}: expected the assets of the graph in {directory}, got {path} at node {name}, "
                    f"which an export would copy; {ADVICE}."
                )


def signature_runs(meta_graph: tf.compat.v1.MetaGraphDef) -> list[Run]:
    """What running each of the signatures of a graph feeds and fetches."""
    return [
        Run([info.name for info in each.outputs.values()], [info.name for info in each.inputs.values()])
        for name, each in meta_graph.signature_def.items()
        if name not in (_INIT_SIGNATURE, _TRAIN_SIGNATURE)
    ]


def functions_called(node: tf.compat.v1.NodeDef) -> Iterator[tuple[str, bool]]:
    """The names of the functions that a node may call, and whether the node itself is the caller.

    Those are its type, and the functions in its attributes. A function in the attributes of another one is called by
    that one, from where its body leaves the name open.
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


def _loading(meta_graph: tf.compat.v1.MetaGraphDef, source: Path) -> Iterator[Run]:
    """What is run to load a graph's state, and to read it again: for an export, or as constants."""
    saver = meta_graph.saver_def
    yield Run([saver.restore_op_name], [saver.filename_tensor_name], [saver.filename_tensor_name])
    yield Run(list(_variables(meta_graph)))
    initialisers: list[str] = []
    if _INIT_SIGNATURE in meta_graph.signature_def:
        initialisers.extend(info.name for info in meta_graph.signature_def[_INIT_SIGNATURE].outputs.values())
    for key in _INITIALISERS:
        if key in meta_graph.collection_def:
            initialisers.extend(meta_graph.collection_def[key].node_list.value)
    assets = _checked_assets(meta_graph, source)
    yield Run(initialisers, assets, assets)


def _variables(meta_graph: tf.compat.v1.MetaGraphDef) -> Iterator[str]:
    """The tensors by which variables are assigned and read."""
    for key in _VARIABLES:
        if key in meta_graph.collection_def:
            content = meta_graph.collection_def[key]
            yield from content.node_list.value
            for value in content.bytes_list.value:
                variable = VariableDef.FromString(value)
                yield from (variable.variable_name, variable.snapshot_name)
    for node in meta_graph.graph_def.node:
        if node.op == "VarHandleOp":
            yield f"{node.name}/Read/ReadVariableOp"  # convert_variables_to_constants reads variables by this name


def _checked_assets(meta_graph: tf.compat.v1.MetaGraphDef, source: Path) -> list[str]:
    """The tensors that the loader of SavedModels feeds with the paths of assets.

    Raises:
      CheckpointError: an asset's name leads out of the SavedModel.
    """
    assets = list(meta_graph.asset_file_def)
    if not assets and _ASSETS in meta_graph.collection_def:
        for packed in meta_graph.collection_def[_ASSETS].any_list.value:
            assets.append(AssetFileDef())
            packed.Unpack(assets[-1])
    for asset in assets:
        path = PurePosixPath(asset.filename)
        if path.is_absolute() or ".." in path.parts:
            raise CheckpointError(
                f"{source}: expected the assets of the graph in its directory, got {asset.filename}; {ADVICE}."
            )
    return [asset.tensor_info.name for asset in assets]


class _Scan:
    """A graph by its nodes' and functions' names, and the functions already scanned."""

    def __init__(self, meta_graph: tf.compat.v1.MetaGraphDef, source: Path) -> None:
        self._source = source
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        library = meta_graph.graph_def.library
        self._functions = {function.signature.name: function for function in library.function}
        self._scanned: set[_Called] = set()
        self._registry = tf.Graph()
        self._saved = {_operation(name) for name in _variables(meta_graph)}
        in_functions = [node for function in library.function for node in function.node_def]
        self._variables_by_name = Counter(
            _name_in_memory(node) for node in (*self._nodes.values(), *in_functions) if node.op == "VarHandleOp"
        )
        # Functions that TensorFlow may run in the place of others: gradients, and implementations of the same name.
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
        """Checks what TensorFlow may evaluate although nothing that is run depends on it."""
        bodies = [(name, function.node_def) for name, function in self._functions.items()]
        for function, nodes in [(None, self._nodes.values()), *bodies]:
            for node in nodes:
                if node.op in HARMLESS or node.op in self._functions or self._is_stateful(node.op):
                    continue
                is_spared = node.op == "MatchingFiles" or refusal(node.op) == _PIPELINE
                if node.op == "ReadFile":
                    is_spared = function is not None or not self._is_evaluated(node)
                if not is_spared:
                    self._check_node(node, function, lambda _: False)

    def check_run(self, run: Run) -> None:
        """Checks what the fetched tensors depend on."""
        fed = {_tensor(name) for name in run.fed}
        file_names = {_tensor(name) for name in run.file_names}
        pending = [name for name in run.fetched if _tensor(name) not in fed]
        reached: set[str] = set()

        def is_file_name(tensor: str) -> bool:
            return _leads_to(tensor, file_names, self._nodes, self._only_value)

        called: list[_Called] = []
        while pending:
            name = _operation(pending.pop())
            if name in reached or name not in self._nodes:  # one that is missing is an error of the import
                continue
            reached.add(name)
            node = self._nodes[name]
            called.extend(self._check_node(node, None, is_file_name))
            pending.extend(each for each in node.input if each.startswith("^") or _tensor(each) not in fed)
        self._check_functions(called)

    def _check_functions(self, pending: list[_Called]) -> None:
        """Checks the bodies of functions, and of those that they call."""
        while pending:
            called = pending.pop()
            if called in self._scanned:
                continue
            self._scanned.add(called)
            function = self._functions.get(called.name)
            if function is None:  # a gradient that is not there
                continue
            nodes = {node.name: node for node in function.node_def}
            arguments = function.signature.input_arg
            if any(each.number_attr or each.type_list_attr for each in arguments):
                arguments = []  # which input is which argument depends on attributes
            file_names = {_tensor(each.name) for index, each in enumerate(arguments) if index in called.file_names}

            def is_file_name(
                tensor: str,
                nodes: Mapping[str, tf.compat.v1.NodeDef] = nodes,
                file_names: Collection[str] = file_names,
            ) -> bool:
                return _leads_to(tensor, file_names, nodes)

            for node in function.node_def:
                pending.extend(self._check_node(node, called.name, is_file_name))

    def _check_node(
        self, node: tf.compat.v1.NodeDef, function: str | None, is_file_name: Callable[[str], bool]
    ) -> list[_Called]:
        """Checks a node by itself; gives the functions that it calls.

        Raises:
          CheckpointError: it may not be run.
        """
        called: list[_Called] = []
        for name, direct in functions_called(node):
            if name in self._functions:  # no operation has its name, or TensorFlow refuses to import the graph
                first = 0 if name == node.op else _FIRST_ARGUMENT.get(node.op)
                passed = node.input[first:] if direct and first is not None else []
                given = frozenset(index for index, tensor in enumerate(passed) if is_file_name(tensor))
                called.extend(_Called(each, given) for each in {name} | self._alternatives.get(name, set()))
                continue
            problem = _FORGES if name == node.op and _forges_handle(node) else refusal(name)
            if problem is not None and not (name == node.op and _is_allowed(node, is_file_name)):
                where = f"node {node.name}" + (f" of function {function}" if function else "")
                raise CheckpointError(
                    f"{self._source}: expected a graph that only computes, got operation {name} at {where}, which "
                    f"{problem}; {ADVICE}."
                )
        return called

    def _only_value(self, variable: str) -> str | None:
        """The tensor that a variable holds whenever it holds one; None where it could hold another."""
        node = self._nodes.get(variable)
        if node is None or node.op != "VarHandleOp" or variable in self._saved:
            return None
        if self._variables_by_name[_name_in_memory(node)] != 1 or self._variables_by_name[_OPEN]:
            return None
        consumers = [each for each in self._nodes.values() if variable in map(_operation, each.input)]
        assignments = [each for each in consumers if each.op == "AssignVariableOp"]
        if len(assignments) != 1 or not {each.op for each in consumers} <= _READING | {"AssignVariableOp"}:
            return None
        handle, value = assignments[0].input[:2]
        return value if _operation(handle) == variable else None

    def _is_evaluated(self, node: tf.compat.v1.NodeDef) -> bool:
        """Whether TensorFlow may evaluate a node while it imports the graph: the rules of its eval_const_tensor.cc."""
        pending, reached = [node], {node.name}
        while pending:
            each = pending.pop()
            if each.op in _OF_SHAPES:  # that of the input may be known
                continue
            data = [name for name in each.input if not name.startswith("^")]
            is_constant = each.op == "Const" or (data and each.op != "PlaceholderWithDefault")
            if not is_constant or each.op in self._functions or self._is_stateful(each.op):
                return False
            names = {_operation(name) for name in data} - reached
            reached |= names
            pending.extend(self._nodes[name] for name in names if name in self._nodes)
        return True

    def _is_stateful(self, op: str) -> bool:
        try:
            return bool(self._registry.op_def_for_type(op).is_stateful)
        except RuntimeError:  # not registered
            return False


def _is_allowed(node: tf.compat.v1.NodeDef, is_file_name: Callable[[str], bool]) -> bool:
    """Whether a node may run although its type is refused in general."""
    if node.op == "PrintV2":  # to standard error, unless it says otherwise
        return "output_stream" not in node.attr or _attribute(node, "output_stream").s in _STREAMS
    index = _NAME_INPUT.get(node.op)
    return index is not None and index < len(node.input) and is_file_name(node.input[index])


def _attribute(node: tf.compat.v1.NodeDef, name: str) -> AttrValue:
    """An attribute, empty where the node has none of that name: asking the map for it would add it to the graph."""
    return node.attr[name] if name in node.attr else AttrValue()


def _name_in_memory(variable: tf.compat.v1.NodeDef) -> str:
    """The name by which variables share a value."""
    shared_name = _attribute(variable, "shared_name")
    return _OPEN if shared_name.placeholder else os.fsdecode(shared_name.s) or variable.name


def _forges_handle(node: tf.compat.v1.NodeDef) -> bool:
    """Whether a node holds a value of a type that is only made by other operations: a handle, or anything at all."""
    if node.op not in _VALUE_TYPE:
        return False
    dtype = _attribute(node, _VALUE_TYPE[node.op])
    return bool(dtype.placeholder) or dtype.type in (DT_RESOURCE, DT_VARIANT)


def _leads_to(
    tensor: str,
    file_names: Collection[str],
    nodes: Mapping[str, tf.compat.v1.NodeDef],
    only_value: Callable[[str], str | None] = lambda _: None,
) -> bool:
    """Whether a tensor is one of these, an Identity of one, or read from a variable that only ever holds one."""
    seen = set()
    while _tensor(tensor) not in file_names:
        node = nodes.get(_operation(tensor))
        if tensor.startswith("^") or node is None or node.name in seen or not node.input:
            return False
        seen.add(node.name)
        before = only_value(_operation(node.input[0])) if node.op == "ReadVariableOp" else None
        if node.op == "Identity":
            before = node.input[0]
        if before is None:
            return False
        tensor = before
    return True


def _operation(name: str) -> str:
    """The name of the operation that an input or a tensor's name leads to."""
    return name.removeprefix("^").partition(":")[0]


def _tensor(name: str) -> str:
    """A tensor's name in full: an operation's stands for its first output."""
    return name if ":" in name else f"{name}:0"
