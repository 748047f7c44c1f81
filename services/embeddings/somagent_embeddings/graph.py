"""A BERT encoder with pooling as an ONNX graph whose weights stay in the safetensors file.

Nothing is converted or copied: an initializer says where in the file its bytes lie, and the runtime maps them.
Source of the layers: https://arxiv.org/abs/1810.04805 and Hugging Face's BertModel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from somagent_slm.environment import SettingsError

from somagent_embeddings.model_folder import ModelFolder, Tensor

OPSET = 20
_KINDS = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16}
_MASKED = float(np.finfo(np.float32).min)


def build_graph(folder: ModelFolder) -> ModelProto:
    """Inputs `ids` (int64) and `mask` (float32), both sentences × tokens, and `positions` (int64, tokens).

    Output `embeddings`: sentences × width, float32. Raises SettingsError for a tensor that is missing or misshapen.
    """
    return _Builder(folder).build()


class _Builder:
    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._count = 0

    def build(self) -> ModelProto:
        hidden = self._embedded()
        self._node("Shape", ["ids"], name="size")
        split = self._constant([self._folder.heads, self._folder.width // self._folder.heads])
        self._node("Concat", ["size", split], name="split", axis=0)
        self._node("Concat", ["size", self._constant([self._folder.width])], name="joined", axis=0)
        self._masked()
        for layer in range(self._folder.layers):
            hidden = self._layer(hidden, f"encoder.layer.{layer}")
        self._pooled(self._node("Reshape", [hidden, "joined"]))
        return self._model()

    def _embedded(self) -> str:
        width = self._folder.width
        words = self._node("Gather", [self._weight("embeddings.word_embeddings.weight", (None, width)), "ids"])
        places = self._weight("embeddings.position_embeddings.weight", (None, width))
        kinds = self._weight("embeddings.token_type_embeddings.weight", (None, width))
        with_place = self._node("Add", [words, self._node("Gather", [places, "positions"])])
        # A text by itself is all of kind 0.
        first = self._node("Gather", [kinds, self._constant(0)])
        normed = self._norm(self._node("Add", [with_place, first]), "embeddings.LayerNorm")
        return self._node("Reshape", [normed, self._constant([-1, width])])

    def _masked(self) -> None:
        """What is added to the scores: nothing for a token, the lowest number for padding."""
        inverse = self._node("Sub", [self._constant(np.float32(1)), "mask"])
        wide = self._node("Unsqueeze", [inverse, self._constant([1, 2])])
        self._node("Mul", [wide, self._constant(np.float32(_MASKED))], name="bias")

    def _layer(self, hidden: str, name: str) -> str:
        width = self._folder.width
        query, value = (
            self._heads(hidden, f"{name}.attention.self.{part}", (0, 2, 1, 3)) for part in ("query", "value")
        )
        key = self._heads(hidden, f"{name}.attention.self.key", (0, 2, 3, 1))
        scale = self._constant(np.float32((width // self._folder.heads) ** -0.5))
        scores = self._node("Add", [self._node("Mul", [self._node("MatMul", [query, key]), scale]), "bias"])
        mixed = self._node("MatMul", [self._node("Softmax", [scores], axis=-1), value])
        flat = self._node("Reshape", [self._node("Transpose", [mixed], perm=[0, 2, 1, 3]), self._constant([-1, width])])
        attended = self._linear(flat, f"{name}.attention.output.dense", width, width)
        hidden = self._norm(self._node("Add", [attended, hidden]), f"{name}.attention.output.LayerNorm")
        inner = self._node("Gelu", [self._linear(hidden, f"{name}.intermediate.dense", None, width)])
        outer = self._linear(inner, f"{name}.output.dense", width, None)
        return self._norm(self._node("Add", [outer, hidden]), f"{name}.output.LayerNorm")

    def _heads(self, hidden: str, name: str, order: Sequence[int]) -> str:
        projected = self._linear(hidden, name, self._folder.width, self._folder.width)
        return self._node("Transpose", [self._node("Reshape", [projected, "split"])], perm=list(order))

    def _linear(self, hidden: str, name: str, rows: int | None, columns: int | None) -> str:
        weight, bias = self._weight(f"{name}.weight", (rows, columns)), self._weight(f"{name}.bias", (rows,))
        return self._node("Gemm", [hidden, weight, bias], transB=1)

    def _norm(self, hidden: str, name: str) -> str:
        parts = [self._weight(f"{name}.{part}", (self._folder.width,)) for part in ("weight", "bias")]
        return self._node("LayerNormalization", [hidden, *parts], axis=-1, epsilon=self._folder.epsilon)

    def _pooled(self, hidden: str) -> None:
        if self._folder.pooling == "cls":
            pooled = self._node("Gather", [hidden, self._constant(0)], axis=1)
        else:
            weights = self._node("Unsqueeze", ["mask", self._constant([2])])
            axis = self._constant([1])
            total = self._node("ReduceSum", [self._node("Mul", [hidden, weights]), axis], keepdims=0)
            count = self._node("ReduceSum", [weights, axis], keepdims=0)
            pooled = self._node("Div", [total, self._node("Max", [count, self._constant(np.float32(1e-9))])])
        if self._folder.normalized:
            self._node("LpNormalization", [pooled], name="embeddings", axis=-1, p=2)
        else:
            self._node("Identity", [pooled], name="embeddings")

    def _node(self, kind: str, inputs: Sequence[str], name: str | None = None, **attributes: object) -> str:
        self._count += 1
        output = name or f"n{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _constant(self, value: object) -> str:
        self._count += 1
        array = np.asarray(value) if isinstance(value, np.generic) else np.asarray(value, dtype=np.int64)
        self._initializers.append(numpy_helper.from_array(array, f"c{self._count}"))
        return f"c{self._count}"

    def _weight(self, name: str, shape: tuple[int | None, ...]) -> str:
        tensor = self._folder.tensors.get(name)
        if tensor is None:
            raise SettingsError(f"{self._folder.path}: the weights have no {name}; this is no plain BERT")
        fits = len(tensor.shape) == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise SettingsError(f"{self._folder.path}: {name} has shape {tensor.shape}, config.json means {shape}")
        self._initializers.append(_external(name, tensor))
        return name if tensor.kind == "F32" else self._node("Cast", [name], to=TensorProto.FLOAT)

    def _model(self) -> ModelProto:
        inputs = [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["sentences", "tokens"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["sentences", "tokens"]),
            helper.make_tensor_value_info("positions", TensorProto.INT64, ["tokens"]),
        ]
        output = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["sentences", self._folder.width])
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _external(name: str, tensor: Tensor) -> TensorProto:
    proto = TensorProto(name=name, data_type=_KINDS[tensor.kind], dims=tensor.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", tensor.file), ("offset", tensor.offset), ("length", tensor.size)):
        proto.external_data.add(key=key, value=str(value))
    return proto
