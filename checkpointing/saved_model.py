"""SavedModels: written beside, loaded back, compared, and only then renamed to their place; loaded by their tags.

A model is built anew in a clean graph and its weights come from a checkpoint, so what is exported holds nothing of
training, and each export proves that the checkpoint it came from can be read.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpointing import alias, durable, graphs, layout, manifest
from checkpointing.errors import CheckpointError, reason
from checkpointing.graphs import Signature

Arrays = Mapping[str, np.ndarray[Any, Any]]
_RELATIVE_TOLERANCE = 1e-5
_ABSOLUTE_TOLERANCE = 1e-6


class TaggedGraph(NamedTuple):
    """One of the graphs of a SavedModel, by whose tags a loader asks for it.

    tags: `serve`, `train`, `gpu`, ...
    build: builds it in the current graph, its variables called as in the checkpoint; gives its signatures by name.
      What loading it is to initialise besides its variables (tables), it adds to the collection TABLE_INITIALIZERS.
    """

    tags: Sequence[str]
    build: Callable[[], Mapping[str, Signature]]


class Example(NamedTuple):
    """Inputs of the serving_default signature, and the outputs that the trained model gave for them."""

    inputs: Arrays
    outputs: Arrays


def check_target(target: Path, flag: str = "--export_dir") -> None:
    """Refuses a target that exists or cannot be made; worth asking before training starts, not after.

    Makes its parents where they are missing.

    Raises:
      CheckpointError: something is at `target`, or it cannot be made.
    """
    if target.exists() or target.is_symlink():
        message = f"{target}: exists already, and no exported model is overwritten: give another {flag}."
        raise CheckpointError(message)
    if layout.step_of(layout.index_path(target).name) is not None:
        raise CheckpointError(f"{target}: a checkpoint's name found, a directory's wanted: give another {flag}.")
    unfinished = layout.unfinished_export_path(target)
    try:
        if unfinished.exists() and not _is_rest_of_export(unfinished):
            raise CheckpointError(f"{unfinished}: in the way, and not ours to delete: move it, or give another {flag}.")
        durable.make_directory(unfinished)
        durable.delete_tree(unfinished)
    except OSError as error:
        message = f"{target}: cannot be made ({error.strerror}); give another {flag}."
        raise CheckpointError(message) from error


def _is_rest_of_export(directory: Path) -> bool:
    """Whether there is nothing in it but what an interrupted export may have written."""
    starts = ("saved_model.pb", "variables", "assets")
    return directory.is_dir() and all(path.name.startswith(starts) for path in directory.iterdir())


def export_saved_model(
    target: Path,
    prefix: Path,
    build_signatures: Callable[[], Mapping[str, Signature]],
    example: Example,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a SavedModel with the tag `serve`.

    Args:
      target: the directory to make; it must not exist. Its parents are made.
      prefix: the checkpoint with the weights.
      build_signatures: builds the model in the current graph; gives its signatures by name, `serving_default` among
        them. The names of its variables are those in the checkpoint.
      example: what the exported model must answer, or it is not put in place.
      notes: texts that go with it, by their files' names, in `assets.extra`.

    Raises:
      CheckpointError: the target exists, or the model, loaded back, answers otherwise than the example.
    """
    check_target(target)
    unfinished = layout.unfinished_export_path(target)
    write(unfinished, prefix, [TaggedGraph([tf.saved_model.SERVING], build_signatures)])
    check_saved_model(unfinished, example)
    for name, text in notes.items():
        path = layout.export_manifest_path(unfinished).with_name(name)
        durable.make_directory(path.parent)
        durable.write(path, text.encode())
    put_in_place(unfinished, target, prefix)


def put_in_place(unfinished: Path, target: Path, prefix: Path) -> None:
    """Makes a written SavedModel exist: records its files' hashes in it, and renames it.

    Args:
      unfinished: where it has been written.
      target: where it goes.
      prefix: the checkpoint that it was made from, which is recorded, too.
    """
    path = layout.export_manifest_path(unfinished)
    files = sorted(each for each in unfinished.rglob("*") if each.is_file() and each != path)
    record = {"checkpoint": prefix.name, "files": manifest.describe_files(files, below=unfinished)}
    durable.make_directory(path.parent)
    durable.replace_json(path, manifest.sealed(record))
    durable.rename_tree(unfinished, target)


def write(directory: Path, prefix: Path, tagged_graphs: Sequence[TaggedGraph], *, as_text: bool = False) -> None:
    """Writes a SavedModel in place, with TensorFlow's Builder.

    Args:
      directory: must not exist.
      prefix: the checkpoint with the weights.
      tagged_graphs: one or more. They share one file of variables, written by the first: those of the others must be
        among its own. Files that a graph names in the collection ASSET_FILEPATHS are copied to `assets/`.
      as_text: writes `saved_model.pbtxt`, which people can read, in place of `saved_model.pb`.

    Raises:
      CheckpointError: the checkpoint cannot be restored, or the disk refuses.
    """
    try:
        builder = tf.compat.v1.saved_model.Builder(str(directory))
        for number, tagged in enumerate(tagged_graphs):
            _add(builder, prefix, tagged, with_variables=number == 0)
        builder.save(as_text=as_text)
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(f"{directory}: could not be written ({reason(error)}).") from error


def _add(builder: tf.compat.v1.saved_model.Builder, prefix: Path, tagged: TaggedGraph, *, with_variables: bool) -> None:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        signatures = graphs.signature_defs(tagged.build())
        saver = tf.compat.v1.train.Saver(allow_empty=True)
        try:
            with alias.without_pattern(prefix) as plain:
                saver.restore(session, str(plain))
        except (ValueError, tf.errors.OpError) as error:
            raise CheckpointError(f"{prefix}: cannot be restored ({reason(error)}).") from error
        keys = tf.compat.v1.GraphKeys
        about = {
            "signature_def_map": signatures,
            "assets_collection": graph.get_collection(keys.ASSET_FILEPATHS),
            "main_op": tf.compat.v1.tables_initializer() if graph.get_collection(keys.TABLE_INITIALIZERS) else None,
            "clear_devices": True,
            "saver": saver,
        }
        # The main_op holds them. Listed as well, they break whoever cuts a signature out of the graph: tf2onnx, and
        # TensorFlow's own convert_variables_to_constants_v2, look for them in the piece.
        graph.clear_collection(keys.TABLE_INITIALIZERS)
        if with_variables:
            builder.add_meta_graph_and_variables(session, list(tagged.tags), **about)
        else:
            builder.add_meta_graph(list(tagged.tags), **about)


def read(directory: Path) -> list[tf.compat.v1.MetaGraphDef]:
    """The graphs of a SavedModel, whoever wrote it; nothing is loaded.

    Raises:
      CheckpointError: there is none, or it cannot be read.
    """
    binary, text = directory / "saved_model.pb", directory / "saved_model.pbtxt"
    model = SavedModel()
    try:
        if binary.is_file() or not text.is_file():
            model.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse(text.read_text(encoding="utf-8"), model)
    except OSError as error:
        message = f"{directory}: no SavedModel found ({binary.name}: {reason(error)}){_models_nearby(directory)}."
        raise CheckpointError(message) from error
    except (DecodeError, UnicodeDecodeError, text_format.ParseError) as error:
        raise CheckpointError(f"{directory}: its SavedModel is damaged ({reason(error)}).") from error
    return list(model.meta_graphs)


def _models_nearby(directory: Path) -> str:
    """Those one and two levels below: a server's base path, a train_dir."""
    found = sorted(path.parent for pattern in ("*", "*/*") for path in directory.glob(f"{pattern}/saved_model.pb*"))
    return f"; there is {', '.join(str(path) for path in found)}" if found else ""


def described(meta_graphs: Sequence[tf.compat.v1.MetaGraphDef]) -> str:
    """What there is to ask for: the tags of each graph, and its signatures."""
    return "; ".join(
        f"tags {','.join(sorted(each.meta_info_def.tags))} "
        f"with signatures {', '.join(sorted(name for name in each.signature_def if not name.startswith('__')))}"
        for each in meta_graphs
    )


def load(session: tf.compat.v1.Session, directory: Path, tags: Sequence[str]) -> tf.compat.v1.MetaGraphDef:
    """Loads the graph with these tags and its variables into a session.

    Raises:
      CheckpointError: there is no such SavedModel; none of its graphs has these tags, and the message tells those that
        there are; or its files are damaged.
    """
    there = read(directory)
    if not any(set(each.meta_info_def.tags) == set(tags) for each in there):
        raise CheckpointError(f"{directory}: tags {','.join(tags)} wanted; there are: {described(there)}.")
    try:
        # The loader looks for the weights below the directory, so it is the directory's own name that counts, too.
        with alias.without_pattern(directory / "saved_model.pb") as plain:
            return tf.compat.v1.saved_model.load(session, list(tags), str(plain.parent))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, tf.errors.OpError) as error:
        raise CheckpointError(f"{directory}: cannot be loaded ({reason(error)}).") from error


def check_loads(directory: Path, tags: Sequence[str]) -> None:
    """Loads the graph with these tags, and its variables, and forgets them.

    Raises:
      CheckpointError: it cannot be loaded.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        load(session, directory, tags)


def check_saved_model(directory: Path, example: Example) -> None:
    """Loads a SavedModel and asks its serving_default signature.

    Raises:
      CheckpointError: it cannot be loaded, or answers otherwise than the example: floats may differ by 1e-5 of their
        size, for the exported graph is optimised on its own; all else must be equal.
    """
    try:
        found = _ask(directory, example.inputs, example.outputs)
    except (CheckpointError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        message = f"{directory}: no model that this run exported ({reason(error)}); give another --export_dir."
        raise CheckpointError(message) from error
    for name, wanted in example.outputs.items():
        if np.issubdtype(wanted.dtype, np.floating):
            equal = np.allclose(found[name], wanted, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE)
        else:
            equal = np.array_equal(found[name], wanted)
        if not equal:
            message = (
                f"{directory}: the model there gives other {name} than the trained one, so it is not this run's; "
                f"give another --export_dir."
            )
            raise CheckpointError(message)


def _ask(directory: Path, inputs: Arrays, outputs: Arrays) -> dict[str, Any]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = load(session, directory, [tf.saved_model.SERVING])
        signature = meta_graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        feed = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = dict(session.run(fetches, feed))
    return {name: found[name] for name in outputs}
