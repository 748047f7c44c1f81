"""Collections: their configuration as JSON and as the engine takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import qdrant_edge as edge

from somagent_vectors.errors import bad_json, unsupported, wrong_input
from somagent_vectors.fields import Json, choice, natural, read, typed

_DISTANCES = {
    "cosine": edge.Distance.Cosine,
    "euclid": edge.Distance.Euclid,
    "dot": edge.Distance.Dot,
    "manhattan": edge.Distance.Manhattan,
}
_DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
_HNSW = ("m", "ef_construct", "full_scan_threshold", "max_indexing_threads", "on_disk", "payload_m")
_OPTIMIZERS = (
    "deleted_threshold",
    "vacuum_min_vector_number",
    "default_segment_number",
    "max_segment_size",
    "indexing_threshold",
)
_SETTINGS = ("hnsw_config", "optimizers_config", "quantization_config", "on_disk_payload")
_CLUSTER = ("shard_number", "replication_factor", "write_consistency_factor")
DEFAULT_HNSW: Json = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 1}
DEFAULT_OPTIMIZERS: Json = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 1,
    "indexing_threshold": 10_000,
}


@dataclass(frozen=True)
class Schema:
    """What a collection holds; `dense` and `sparse` are by vector name, the unnamed vector is ``""``."""

    dense: dict[str, Json]
    sparse: dict[str, Json]
    settings: Json = field(default_factory=dict)

    @property
    def hnsw(self) -> Json:
        return {**DEFAULT_HNSW, **self.settings.get("hnsw_config", {})}

    @property
    def optimizers(self) -> Json:
        return {**DEFAULT_OPTIMIZERS, **self.settings.get("optimizers_config", {})}

    def changed(self, settings: Json) -> Schema:
        merged = {name: {**self.settings.get(name, {}), **value} for name, value in settings.items()}
        return Schema(self.dense, self.sparse, {**self.settings, **merged})

    def to_json(self) -> Json:
        return {"dense": self.dense, "sparse": self.sparse, "settings": self.settings}

    @staticmethod
    def from_json(body: Json) -> Schema:
        return Schema(body["dense"], body["sparse"], body["settings"])

    def to_engine(self) -> edge.EdgeConfig:
        """Raises QdrantError for a value that the engine does not know."""
        dense = {name: _vector(params, _at(name)) for name, params in self.dense.items()}
        sparse = {name: _sparse_vector(params, _at(name)) for name, params in self.sparse.items()}
        on_disk = self.settings.get("on_disk_payload", True)
        return edge.EdgeConfig(
            vectors=dense or None,
            sparse_vectors=sparse or None,
            payload_memory=edge.Memory.Cold if on_disk else edge.Memory.Cached,
            hnsw_config=_hnsw(self.hnsw, "hnsw_config"),
            quantization_config=_quantization(self.settings.get("quantization_config"), "quantization_config"),
            optimizers=edge.EdgeOptimizersConfig(**self.optimizers),
            max_search_threads=1,
        )

    def described(self) -> Json:
        """`config` of Qdrant's answer about a collection."""
        vectors: Any = self.dense[""] if list(self.dense) == [""] else self.dense
        params: Json = {
            "vectors": vectors,
            **dict.fromkeys(_CLUSTER, 1),
            "on_disk_payload": self.settings.get("on_disk_payload", True),
        }
        if self.sparse:
            params["sparse_vectors"] = self.sparse
        return {
            "params": params,
            "hnsw_config": self.hnsw,
            "optimizer_config": {**self.optimizers, "flush_interval_sec": 5},
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "quantization_config": self.settings.get("quantization_config"),
        }


def schema_of(body: Any) -> Schema:
    """The schema that a request to create a collection asks for. Raises QdrantError."""
    parts = read(body, "the collection", optional=("vectors", "sparse_vectors", *_SETTINGS, *_CLUSTER))
    for name in _CLUSTER:
        if parts.get(name, 1) != 1:
            raise unsupported(f"{name} {parts[name]}", "one process serves it: use 1, or the server renderer")
    vectors = typed(parts.get("vectors", {}), dict, "vectors")
    schema = Schema(
        dense={"": vectors} if "size" in vectors else vectors,
        sparse=typed(parts.get("sparse_vectors", {}), dict, "sparse_vectors"),
        settings={name: parts[name] for name in _SETTINGS if name in parts},
    )
    if not schema.dense and not schema.sparse:
        raise wrong_input("the collection has neither vectors nor sparse_vectors; name at least one")
    schema.to_engine()
    return schema


def settings_of(body: Any) -> Json:
    """The settings that a request to update a collection changes."""
    return read(body, "the update", optional=("hnsw_config", "optimizers_config", "quantization_config"))


def _at(name: str) -> str:
    return f"vectors[{name}]" if name else "vectors"


def _vector(body: Any, where: str) -> edge.EdgeVectorParams:
    optional = ("on_disk", "hnsw_config", "quantization_config", "datatype", "multivector_config")
    parts = read(body, where, required=("size", "distance"), optional=optional)
    multi = parts.get("multivector_config")
    if multi is not None:
        choice(
            read(multi, f"{where}.multivector_config", required=("comparator",))["comparator"], {"max_sim": 1}, where
        )
    return edge.EdgeVectorParams(
        size=natural(parts["size"], f"{where}.size", 1, 65_536),
        distance=choice(parts["distance"], _DISTANCES, f"{where}.distance"),
        memory=edge.Memory.Cold if parts.get("on_disk") else edge.Memory.Cached,
        datatype=choice(parts["datatype"], _DATATYPES, f"{where}.datatype") if "datatype" in parts else None,
        hnsw_config=_hnsw({**DEFAULT_HNSW, **parts["hnsw_config"]}, where) if "hnsw_config" in parts else None,
        quantization_config=_quantization(parts.get("quantization_config"), f"{where}.quantization_config"),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if multi else None,
    )


def _sparse_vector(body: Any, where: str) -> edge.EdgeSparseVectorParams:
    parts = read(body, where, optional=("index", "modifier"))
    index = read(parts.get("index", {}), f"{where}.index", optional=("full_scan_threshold", "on_disk"))
    modifiers = {"none": None, "idf": edge.Modifier.Idf}
    if parts.get("modifier", "none") not in modifiers:
        raise bad_json(f"{where}.modifier is {parts['modifier']!r}; send one of {', '.join(modifiers)}")
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        memory=edge.Memory.Cold if index.get("on_disk") else edge.Memory.Cached,
        modifier=modifiers[parts.get("modifier", "none")],
    )


def _hnsw(body: Any, where: str) -> edge.HnswIndexConfig:
    parts = read(body, where, optional=_HNSW)
    on_disk = parts.pop("on_disk", False)
    return edge.HnswIndexConfig(**parts, memory=edge.Memory.Cold if on_disk else edge.Memory.Cached)


def _quantization(body: Any, where: str) -> Any:
    if body is None:
        return None
    parts = read(body, where, optional=("scalar", "binary"))
    if set(parts) == {"binary"}:
        binary = read(parts["binary"], f"{where}.binary", optional=("always_ram",))
        return edge.BinaryQuantizationConfig(memory=_quantized_memory(binary))
    if set(parts) != {"scalar"}:
        raise bad_json(f"{where} names {sorted(parts)}; send one of scalar, binary")
    scalar = read(parts["scalar"], f"{where}.scalar", required=("type",), optional=("quantile", "always_ram"))
    choice(scalar["type"], {"int8": 1}, f"{where}.scalar.type")
    return edge.ScalarQuantizationConfig(
        edge.ScalarType.Int8, quantile=scalar.get("quantile"), memory=_quantized_memory(scalar)
    )


def _quantized_memory(body: Json) -> edge.Memory:
    return edge.Memory.Pinned if body.get("always_ram") else edge.Memory.Cached


_KEYWORD = ("is_tenant", "on_disk", "enable_hnsw")
_NUMBER = ("is_principal", "on_disk", "enable_hnsw")
_INDEXES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "keyword": (edge.KeywordIndexParams, _KEYWORD),
    "uuid": (edge.UuidIndexParams, _KEYWORD),
    "integer": (edge.IntegerIndexParams, ("lookup", "range", *_NUMBER)),
    "float": (edge.FloatIndexParams, _NUMBER),
    "datetime": (edge.DatetimeIndexParams, _NUMBER),
    "bool": (edge.BoolIndexParams, ("on_disk", "enable_hnsw")),
    "geo": (edge.GeoIndexParams, ("on_disk", "enable_hnsw")),
    "text": (
        edge.TextIndexParams,
        ("tokenizer", "min_token_len", "max_token_len", "lowercase", "ascii_folding", "phrase_matching", "on_disk"),
    ),
}
_TOKENIZERS = {
    "word": edge.TokenizerType.Word,
    "whitespace": edge.TokenizerType.Whitespace,
    "prefix": edge.TokenizerType.Prefix,
    "multilingual": edge.TokenizerType.Multilingual,
}


def index_of(body: Any) -> Any:
    """Parameters of a payload index: a type by name, or an object with `type` and its options."""
    parts = dict(typed({"type": body} if isinstance(body, str) else body, dict, "field_schema"))
    factory, options = choice(parts.pop("type", None), _INDEXES, "field_schema.type")
    chosen = read(parts, "field_schema", optional=options)
    if "tokenizer" in chosen:
        chosen["tokenizer"] = choice(chosen["tokenizer"], _TOKENIZERS, "field_schema.tokenizer")
    return factory(**chosen)
