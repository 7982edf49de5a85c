"""Which nodes of an exported graph belong to which layer of the network: what int8 takes, what it leaves."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from detect.errors import InputError

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the modules that a node comes from, from the outermost to the operator."""
BOX_BINS = "box_bins"
"""The layer of the network that takes expectations, of products that 8 bits would round too far."""
NETWORK = "net"
"""The attribute of `graphs.DetectorGraph` that holds the network; decoding and NMS stand in another."""


def node_scopes(node: Any) -> list[str]:
    """Paths of the modules that an ONNX node comes from; none for nodes that the exporter made up."""
    for entry in node.metadata_props:
        if entry.key == SCOPES_KEY:
            return [str(scope) for scope in ast.literal_eval(entry.value)]
    return []


def in_network(node: Any) -> bool:
    """Whether a node is part of the network, not of decoding or NMS."""
    return NETWORK in node_scopes(node)


def in_layers(node: Any, layers: Sequence[str]) -> bool:
    """Whether a node is part of some layers, given by their paths below the network: "cls_heads.0"."""
    prefixes = tuple(f"{NETWORK}.{layer}." for layer in layers)
    return any(f"{scope}.".startswith(prefixes) for scope in node_scopes(node))


def nodes_left_in_fp32(model: Any, keep_fp32: Sequence[str]) -> set[str]:
    """Names of the nodes that int8 must not touch: decoding, NMS, expectations of bins, the layers named.

    Args:
        model: an ONNX model written by `onnxruntime.write_onnx`.
        keep_fp32: paths of layers below the network.

    Raises:
        InputError: the network has no such layer.
    """
    known = layers_of(model)
    for layer in keep_fp32:
        if layer not in known:
            raise InputError(f"--keep_fp32 {layer}: the network has no such layer; e.g. {sorted(known)[0]}")
    left = (*keep_fp32, BOX_BINS)
    return {node.name for node in model.graph.node if not in_network(node) or in_layers(node, left)}


def layers_of(model: Any) -> set[str]:
    """Paths of all layers below the network, at every depth; lists of layers stand there too."""
    prefix = f"{NETWORK}."
    found: set[str] = set()
    for node in model.graph.node:
        for scope in node_scopes(node):
            if scope.startswith(prefix):
                names = scope.removeprefix(prefix).split(".")
                found |= {".".join(names[:depth]) for depth in range(1, len(names) + 1)}
    return found
