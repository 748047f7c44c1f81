"""A BERT encoder with pooling as a graph of OpenVINO whose weights stay in the safetensors file.

Nothing is converted: a constant is a view of the mapped file, from which the runtime takes what it needs.
Source of the layers: https://arxiv.org/abs/1810.04805 and Hugging Face's BertModel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openvino import Model, Node, PartialShape, Type, opset15
from somagent_slm.environment import SettingsError

from somagent_embeddings.model_folder import ModelFolder, Tensor

_KINDS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_MASKED = float(np.finfo(np.float32).min)


def build_graph(folder: ModelFolder) -> Model:
    """Inputs `ids` (int64) and `mask` (float32), both sentences × tokens, and `positions` (int64, tokens).

    Output: sentences × width, float32. Raises SettingsError for a tensor that is missing or misshapen.
    """
    return _Builder(folder).build()


class _Builder:
    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._ids = opset15.parameter(PartialShape([-1, -1]), Type.i64, "ids")
        self._mask = opset15.parameter(PartialShape([-1, -1]), Type.f32, "mask")
        self._positions = opset15.parameter(PartialShape([-1]), Type.i64, "positions")

    def build(self) -> Model:
        hidden = self._embedded()
        # Nothing is added to the scores of a token; to those of padding the lowest number.
        wide = opset15.unsqueeze(opset15.subtract(_number(1), self._mask), _integers(1, 2))
        bias = opset15.multiply(wide, _number(_MASKED))
        for layer in range(self._folder.layers):
            hidden = self._layer(hidden, bias, f"encoder.layer.{layer}")
        return Model([self._pooled(hidden)], [self._ids, self._mask, self._positions], "bert")

    def _embedded(self) -> Node:
        width = self._folder.width
        words = self._looked_up("embeddings.word_embeddings.weight", (None, width), self._ids)
        places = self._looked_up("embeddings.position_embeddings.weight", (None, width), self._positions)
        # A text by itself is all of kind 0.
        kind = self._looked_up("embeddings.token_type_embeddings.weight", (None, width), _integers(0))
        return self._norm(opset15.add(opset15.add(words, places), kind), "embeddings.LayerNorm")

    def _looked_up(self, table: str, shape: tuple[int | None, ...], ids: Node) -> Node:
        return opset15.gather(self._weight(table, shape), ids, _integer(0))

    def _layer(self, hidden: Node, bias: Node, name: str) -> Node:
        width = self._folder.width
        query, key, value = (
            self._heads(hidden, f"{name}.attention.self.{part}") for part in ("query", "key", "value")
        )
        mixed = opset15.scaled_dot_product_attention(query, key, value, bias)
        flat = opset15.reshape(opset15.transpose(mixed, _integers(0, 2, 1, 3)), _integers(0, 0, width), True)
        attended = self._linear(flat, f"{name}.attention.output.dense", width, width)
        hidden = self._norm(opset15.add(attended, hidden), f"{name}.attention.output.LayerNorm")
        inner = opset15.gelu(self._linear(hidden, f"{name}.intermediate.dense", None, width), "erf")
        outer = self._linear(inner, f"{name}.output.dense", width, None)
        return self._norm(opset15.add(outer, hidden), f"{name}.output.LayerNorm")

    def _heads(self, hidden: Node, name: str) -> Node:
        """Sentences × heads × tokens × width of a head."""
        heads, width = self._folder.heads, self._folder.width
        projected = self._linear(hidden, name, width, width)
        split = opset15.reshape(projected, _integers(0, 0, heads, width // heads), True)
        return opset15.transpose(split, _integers(0, 2, 1, 3))

    def _linear(self, hidden: Node, name: str, rows: int | None, columns: int | None) -> Node:
        product = opset15.matmul(hidden, self._weight(f"{name}.weight", (rows, columns)), False, True)
        return opset15.add(product, self._weight(f"{name}.bias", (rows,)))

    def _norm(self, hidden: Node, name: str) -> Node:
        weight, bias = (self._weight(f"{name}.{part}", (self._folder.width,)) for part in ("weight", "bias"))
        centred = opset15.mvn(hidden, _integers(-1), True, self._folder.epsilon, "inside_sqrt")
        return opset15.add(opset15.multiply(centred, weight), bias)

    def _pooled(self, hidden: Node) -> Node:
        if self._folder.pooling == "cls":
            pooled = opset15.gather(hidden, _integer(0), _integer(1))
        else:
            weights = opset15.unsqueeze(self._mask, _integers(2))
            total = opset15.reduce_sum(opset15.multiply(hidden, weights), _integers(1))
            pooled = opset15.divide(total, opset15.maximum(opset15.reduce_sum(weights, _integers(1)), _number(1e-9)))
        return opset15.normalize_l2(pooled, _integers(1), 1e-12, "max") if self._folder.normalized else pooled

    def _weight(self, name: str, shape: tuple[int | None, ...]) -> Node:
        tensor = self._folder.tensors.get(name)
        if tensor is None:
            raise SettingsError(f"{self._folder.path}: the weights have no {name}; this is no plain BERT")
        fits = len(tensor.shape) == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise SettingsError(f"{self._folder.path}: {name} has shape {tensor.shape}, config.json means {shape}")
        weight = opset15.constant(self._view(tensor), shared_memory=True)
        return weight if tensor.kind == "F32" else opset15.convert(weight, "f32")

    def _view(self, tensor: Tensor) -> np.ndarray:
        file = self._folder.path / tensor.file
        # The runtime wants a view that could be written; "c" would keep a copy of what is, and nothing is.
        return np.memmap(file, _KINDS[tensor.kind], "c", tensor.offset, tensor.shape)


def _integer(value: int) -> Node:
    return opset15.constant(np.int64(value))


def _integers(*values: int) -> Node:
    return opset15.constant(np.array(values, dtype=np.int64))


def _number(value: float) -> Node:
    return opset15.constant(np.float32(value))
