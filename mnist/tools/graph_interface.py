"""Which tensors of a graph take images and return classes: a signature's, or those named on the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from checkpointing.graphs import meta_graphs
from checkpointing.graphs.graph_scan import Run
from mnist.errors import SignatureError
from mnist.model import predictor
from mnist.model.predictor import Predictor


class GraphInterface(NamedTuple):
    """What the command line says about a graph.

    signature: name of the signature that is used if no tensors are named.
    tensors: names of the tensors of images and of answers; None: as in the signature.
    feeds: other tensors to feed, by name, and their values.
    trusted: load the graph without scanning it.
    """

    signature: str
    tensors: tuple[str, str] | None
    feeds: Sequence[tuple[str, Any]]
    trusted: bool

    def runs(self, meta_graph: tf.compat.v1.MetaGraphDef) -> list[Run]:
        """Return what will be run, for the scan of the graph; nothing if `predictor` will raise an error."""
        fed = [name for name, _ in self.feeds]
        if self.tensors is not None:
            images, answers = self.tensors
            return [Run([answers], [images, *fed])]
        if self.signature not in meta_graph.signature_def:
            return []
        signature = meta_graph.signature_def[self.signature]
        inputs, outputs = ([info.name for info in side.values()] for side in (signature.inputs, signature.outputs))
        return [Run(outputs, [*inputs, *fed])]

    def needed(self, meta_graph: tf.compat.v1.MetaGraphDef, meta: Path) -> tf.compat.v1.MetaGraphDef:
        """Return a copy of the part of a graph that will be run: that of the signature, or all of it.

        Raises:
          CheckpointError: it has other signatures only.
          ValueError, LookupError, TypeError: the signature does not fit the graph.
        """
        if self.tensors is not None or not meta_graph.signature_def:
            return type(meta_graph).FromString(meta_graph.SerializeToString())  # importing it changes it
        meta_graphs.check_signatures(meta_graph, [self.signature], meta)
        return meta_graphs.pruned(meta_graph, [self.signature])

    def predictor(self, graph: tf.Graph, signatures: Mapping[str, Any], source: Path) -> Predictor:
        """Return the predictor of an imported graph.

        Raises:
          SignatureError: there are no such tensors, or they do not take images or return classes.
        """
        if self.tensors is not None:
            return predictor.from_tensors(graph, self.tensors, self.feeds, source)
        if self.signature in signatures:
            return predictor.from_signature(graph, signatures[self.signature], self.feeds, source)
        raise SignatureError(f"{source}: no signature found", hint=predictor.tensors_hint(graph))
