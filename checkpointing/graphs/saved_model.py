"""SavedModels: written beside, loaded back, compared, and only then renamed to their place; loaded by their tags.

Each export carries the size and sha256 of its files. They are taken when the files have been written, and compared
before the export gets its name and whenever a run finds it.

A model is built anew in a clean graph and its weights come from a checkpoint, so what is exported holds nothing of
training, and each export proves that the checkpoint it came from can be read.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from checkpointing.errors import LATER, CheckpointError, DamagedError, is_damage, reason
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import graph_safety, meta_graphs
from checkpointing.graphs.graph_safety import Run
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.protocol import manifest, quarantine
from checkpointing.storage import durable, layout, regular_file, staging, tf_path, write_guard
from checkpointing.storage.staging import TargetExistsError

Arrays = Mapping[str, np.ndarray[Any, Any]]
_RELATIVE_TOLERANCE = 1e-5
_ABSOLUTE_TOLERANCE = 1e-6
_MOST_BYTES = 2**31  # more than a protocol buffer can hold

# Below an export: its weights, and what was put beside it by us or by its users (SavedModel leaves the folder to them).
_DATA = "variables/variables.data-"
_NOTES = "assets.extra/"
_PARTS = ("saved_model.pb", "saved_model.pbtxt", "variables", "assets.extra")

_log = logging.getLogger(__name__)


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
      TargetExistsError: something is at the target.
      CheckpointError: it cannot be written, or the model, loaded back, answers otherwise than the example.
    """
    with unfinished_export(target) as unfinished:
        _write_checked(unfinished, prefix, build_signatures, example, notes)
        publish(unfinished, target)


def ensure_exported(
    target: Path,
    prefix: Path,
    build_signatures: Callable[[], Mapping[str, Signature]],
    example: Example,
    notes: Mapping[str, str] = MappingProxyType({}),
    *,
    train_dir: Path,
    step: int,
) -> None:
    """Exports a model with the tag `serve`, or keeps an intact export of the same weights that is at the target.

    A damaged export of this run is moved to the train_dir's quarantine, or to `<target>.damaged` where it lies outside
    the train_dir, and exported again. Nothing else at the target is moved or deleted.

    Args:
      target: the directory to make, or to check.
      prefix: the checkpoint with the weights.
      build_signatures: as for `export_saved_model`.
      example: what the exported model must answer.
      notes: texts that go with it, by their files' names, in `assets.extra`.
      train_dir: of the run, which holds its lock.
      step: of the checkpoint.

    Raises:
      CheckpointError: something else is at the target, or it cannot be read or written.
    """
    is_own_place = layout.resolved(target) == layout.resolved(layout.export_path(train_dir, step))
    try:
        staging.sweep(target)
        if is_own_place:
            staging.sweep_old(target)
        if not staging.is_there(target):
            with suppress(TargetExistsError):  # another process was faster: the same model, or an error
                export_saved_model(target, prefix, build_signatures, example, notes)
                return
        damage = find_damage(target)
    except OSError as error:
        message = f"{target}: cannot be read ({reason(error)}); {LATER}."
        raise CheckpointError(message) from error
    if damage is not None:
        with unfinished_export(target) as unfinished:
            record = _write_checked(unfinished, prefix, build_signatures, example, notes)
            damage = find_damage(target)  # again: another process may have replaced it meanwhile
            if damage is not None:
                if not _is_export_of(record, target, is_own_place=is_own_place):
                    message = (
                        f"{target}: expected nothing or an export of {prefix}, got something else ({damage}); nothing "
                        f"was changed; move it away, or give another --export_dir."
                    )
                    raise CheckpointError(message)
                _set_aside(target, layout.export_quarantine_path(target, train_dir), damage)
                publish(unfinished, target)
                return
    _check_is_export_of(target, prefix, example)
    _warn_of_extra_files(target)


def _set_aside(target: Path, place: Path, damage: str) -> None:
    try:
        quarantine.set_tree_aside(target, place, f"the export is damaged ({damage}); exporting it again")
    except OSError as error:
        message = (
            f"{target}: the export is damaged ({damage}), and cannot be moved to {place} ({reason(error)}); "
            f"move it away, and run the same command again."
        )
        raise CheckpointError(message) from error


def find_damage(directory: Path) -> str | None:
    """What is wrong with the files of an export, as its manifest records them; None where each byte is right.

    Raises:
      CheckpointError: they cannot be read just now, which says nothing about their bytes.
    """
    try:
        manifest.check_described(directory, _recorded(directory)["files"])
    except DamagedError as error:
        return str(error)
    return None


def _recorded(directory: Path) -> dict[str, Any]:
    return manifest.read_sealed(layout.export_manifest_path(directory), manifest.EXPORT)


def _check_is_export_of(target: Path, prefix: Path, example: Example) -> None:
    """Checks that an intact export holds the weights of a checkpoint, and answers as its model does.

    Raises:
      CheckpointError: it does not.
    """
    different = _different_variables(target / "variables" / "variables", prefix)
    if different:
        found = _recorded(target)["checkpoint"]
        message = (
            f"{target}: expected an export of {prefix}, got one of another run's {found} ({', '.join(different[:3])} "
            f"differ); nothing was changed; give another --export_dir."
        )
        raise CheckpointError(message)
    try:
        check_saved_model(target, example)
    except CheckpointError as error:
        what = str(error).rstrip(".").removesuffix(f"; {graph_safety.ADVICE}")  # a run has no such flag
        message = f"{what}; nothing was changed; give another --export_dir."
        raise CheckpointError(message) from error


def _different_variables(exported: Path, prefix: Path) -> list[str]:
    """The names of an export's variables that another checkpoint lacks or has with other bits, in sorted order."""
    if not layout.index_path(exported).exists():  # a model without variables
        return []
    found, expected = Bundle(exported), Bundle(prefix)

    def is_equal(name: str) -> bool:
        one, other = found.tensor(name), expected.tensor(name)
        return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()

    return [name for name in found.entries if name not in expected.entries or not is_equal(name)]


def _is_export_of(record: Mapping[str, Any], target: Path, *, is_own_place: bool) -> bool:
    """Whether a damaged directory is evidently an export of the same weights as another export.

    Args:
      record: the manifest of the other one, which has just been written.
      target: the damaged directory.
      is_own_place: whether nothing but this run exports to it.
    """
    telling = {name: file for name, file in record["files"].items() if name.startswith((_DATA, _NOTES))}
    weights = {name: file for name, file in telling.items() if name.startswith(_DATA)}
    try:
        files = _recorded(target)["files"]
    except DamagedError:
        there = [name for name in _PARTS if (target / name).exists()]
        return bool(there) and (is_own_place or any(_is_file(target / name, file) for name, file in telling.items()))
    return all(files.get(name) == file for name, file in (weights or telling).items())


def _is_file(path: Path, file: Mapping[str, Any]) -> bool:
    """Whether a file is as `describe_files` found another one."""
    try:
        return list(manifest.describe_files([path]).values()) == [file]
    except OSError as error:
        if is_damage(error):
            return False
        raise manifest.unreadable(path, error) from error


def _warn_of_extra_files(target: Path) -> None:
    """Logs which files have been added to an export since; in `assets.extra` they are expected."""
    recorded = set(_recorded(target)["files"])
    extra = sorted(name for name in _files_of(target) if name not in recorded and not name.startswith(_NOTES))
    if extra:
        _log.warning("%s: expected the files of its manifest, got also %s; left as they are", target, ", ".join(extra))


def _files_of(directory: Path) -> dict[str, Path]:
    """All files below an export, but for its manifest, by their path below it."""
    path = layout.export_manifest_path(directory)
    files = sorted(each for each in directory.rglob("*") if each.is_file() and each != path)
    return {each.relative_to(directory).as_posix(): each for each in files}


def _write_checked(
    unfinished: Path,
    prefix: Path,
    build_signatures: Callable[[], Mapping[str, Signature]],
    example: Example,
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """Writes an export, records its files, and then loads it and compares its answers; gives the record."""
    write(unfinished, prefix, [TaggedGraph([tf.saved_model.SERVING], build_signatures)])
    for name, text in notes.items():
        path = layout.export_manifest_path(unfinished).with_name(name)
        durable.make_directory(path.parent)
        durable.write(path, text.encode())
    record = seal(unfinished, prefix)
    check_saved_model(unfinished, example)
    return record


@contextmanager
def unfinished_export(target: Path, flag: str = "--export_dir") -> Iterator[Path]:
    """A path to write an export to; see `staging.beside`.

    Raises:
      CheckpointError: the directory cannot be made, or the disk refuses.
    """
    try:
        with staging.beside(target) as unfinished:
            yield unfinished
    except OSError as error:
        where = error.filename or target
        raise CheckpointError(f"{where}: could not be written ({reason(error)}); give another {flag}.") from error


def seal(unfinished: Path, prefix: Path) -> dict[str, Any]:
    """Records the size and sha256 of each file of a SavedModel in it; gives the record.

    Args:
      unfinished: where it has been written.
      prefix: the checkpoint that it was made from, which is recorded, too.
    """
    path = layout.export_manifest_path(unfinished)
    files = list(_files_of(unfinished).values())
    record = {"checkpoint": prefix.name, "files": manifest.describe_files(files, below=unfinished)}
    durable.make_directory(path.parent)
    durable.atomic_write_json(path, manifest.sealed(record))
    return record


def publish(unfinished: Path, target: Path) -> None:
    """Renames a sealed SavedModel to its target, once each of its bytes is still as recorded.

    Raises:
      TargetExistsError: something is at the target, and stays.
      CheckpointError: the SavedModel has changed since it was sealed.
    """
    damage = find_damage(unfinished)
    if damage is not None:
        message = f"{target}: a file changed while it was being exported ({damage}); run the same command again."
        raise CheckpointError(message)
    staging.check_is_free(target)
    try:
        durable.rename_tree(unfinished, target)
    except OSError as error:
        if staging.is_there(unfinished):  # a directory is never renamed over a file, or a directory with files
            staging.check_is_free(target)
        raise CheckpointError(f"{target}: could not be written ({reason(error)}).") from error


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
    write_guard.check(directory)
    try:
        builder = tf.compat.v1.saved_model.Builder(str(directory))  # TensorFlow 1 called it SavedModelBuilder
        for number, tagged in enumerate(tagged_graphs):
            _add(builder, prefix, tagged, with_variables=number == 0)
        builder.save(as_text=as_text)
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(f"{directory}: could not be written ({reason(error)}).") from error


def _add(builder: tf.compat.v1.saved_model.Builder, prefix: Path, tagged: TaggedGraph, *, with_variables: bool) -> None:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        signatures = meta_graphs.signature_defs(tagged.build())
        saver = tf.compat.v1.train.Saver(allow_empty=True)
        try:
            with tf_path.without_pattern(prefix) as plain:
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
            model.ParseFromString(regular_file.read(binary, _MOST_BYTES))
        else:
            text_format.Parse(regular_file.read(text, _MOST_BYTES).decode(), model)
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


def load(
    session: tf.compat.v1.Session,
    directory: Path,
    tags: Sequence[str],
    *,
    runs: Callable[[tf.compat.v1.MetaGraphDef], Iterable[Run]] = graph_safety.signature_runs,
    trusted: bool = False,
) -> tf.compat.v1.MetaGraphDef:
    """Loads the graph with these tags and its variables into a session.

    Args:
      session: on the graph to load into.
      directory: the SavedModel.
      tags: those of the graph.
      runs: from the graph to what the session will run; unset: all its signatures.
      trusted: loads the graph without scanning it.

    Raises:
      CheckpointError: there is no such SavedModel; none of its graphs has these tags, and the message lists those that
        there are; its files are damaged; or it is not safe to load.
    """
    there = read(directory)
    meta_graph = next((each for each in there if set(each.meta_info_def.tags) == set(tags)), None)
    if meta_graph is None:
        raise CheckpointError(f"{directory}: tags {','.join(tags)} wanted; there are: {described(there)}.")
    if not trusted:
        graph_safety.check(meta_graph, directory, runs(meta_graph))
    try:
        # The loader looks for the weights below the directory, so it is the directory's own name that counts, too.
        with tf_path.without_pattern(directory / "saved_model.pb") as plain:
            return tf.compat.v1.saved_model.load(session, list(tags), str(plain.parent))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, tf.errors.OpError) as error:
        raise CheckpointError(f"{directory}: cannot be loaded ({reason(error)}).") from error


def check_loads(directory: Path, tags: Sequence[str], *, trusted: bool = False) -> None:
    """Loads the graph with these tags, and its variables, and forgets them.

    Raises:
      CheckpointError: it cannot be loaded, or is not safe to load.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        load(session, directory, tags, trusted=trusted)


def check_saved_model(directory: Path, example: Example) -> None:
    """Loads a SavedModel and compares the answers of its serving_default signature.

    Raises:
      CheckpointError: it cannot be loaded, or answers otherwise than the example: floats may differ by 1e-5 of their
        size, for the exported graph is optimised on its own; all else must be equal.
    """
    try:
        found = _ask(directory, example.inputs, example.outputs)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        message = f"{directory}: expected a model with the trained one's signature, got another ({reason(error)})."
        raise CheckpointError(message) from error
    for name, expected in example.outputs.items():
        if np.issubdtype(expected.dtype, np.floating):
            equal = np.allclose(found[name], expected, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE)
        else:
            equal = np.array_equal(found[name], expected)
        if not equal:
            raise CheckpointError(f"{directory}: expected the trained model's {name}, got others.")


def _ask(directory: Path, inputs: Arrays, outputs: Arrays) -> dict[str, Any]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = load(session, directory, [tf.saved_model.SERVING])
        signature = meta_graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        feed = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = dict(session.run(fetches, feed))
    return {name: found[name] for name in outputs}
