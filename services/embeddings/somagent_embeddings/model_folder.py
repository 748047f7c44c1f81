"""Reads a sentence-transformers directory. What would be computed wrongly is refused by file, field and value."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somagent_slm.environment import SettingsError

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_ITEM_BYTES = {"F32": 4, "F16": 2}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `offset` is in bytes from the start of `file`. `kind` is F32 or F16."""

    file: str
    offset: int
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * _ITEM_BYTES[self.kind]


@dataclass(frozen=True)
class ModelFolder:
    """A BERT with pooling. `longest` is how many tokens of a text count, `[CLS]` and `[SEP]` among them."""

    path: Path
    width: int
    layers: int
    heads: int
    epsilon: float
    longest: int
    pooling: str
    normalized: bool
    lowercase: bool
    tensors: dict[str, Tensor]


def read_model_folder(path: Path) -> ModelFolder:
    """Raises SettingsError naming the file, the field and what is supported."""
    config = _json(path / "config.json")
    _expect(path, "config.json", config, "model_type", ("bert",))
    _expect(path, "config.json", config, "hidden_act", ("gelu",))
    _expect(path, "config.json", config, "position_embedding_type", ("absolute",), default="absolute")
    pooling, normalized = _modules(path)
    sentence = _json(path / "sentence_bert_config.json")
    longest = min(int(sentence.get("max_seq_length") or 10**9), int(config["max_position_embeddings"]))
    return ModelFolder(
        path=path,
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
        longest=longest,
        pooling=pooling,
        normalized=normalized,
        lowercase=bool(sentence.get("do_lower_case")),
        tensors=_tensors(path),
    )


def _modules(path: Path) -> tuple[str, bool]:
    modules = _json(path / "modules.json")
    kinds = [str(module["type"]).rsplit(".", maxsplit=1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise SettingsError(f"{path}/modules.json has {', '.join(kinds)}; supported: Transformer, Pooling[, Normalize]")
    config = _json(path / modules[1]["path"] / "config.json")
    chosen = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        place = f"{path}/{modules[1]['path']}/config.json"
        raise SettingsError(f"{place} chooses {', '.join(chosen)}; supported is one of {', '.join(_POOLINGS)}")
    return _POOLINGS[chosen[0]], "Normalize" in kinds


def _tensors(path: Path) -> dict[str, Tensor]:
    index = path / "model.safetensors.index.json"
    names = sorted(set(_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= _header(path / name)
    return tensors


def _header(file: Path) -> dict[str, Tensor]:
    """The table of a safetensors file. Source: https://github.com/huggingface/safetensors#format"""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
        total = file.stat().st_size
    except (OSError, struct.error, ValueError) as error:
        raise SettingsError(f"{file} can't be read ({error}); use a model with safetensors weights") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in _ITEM_BYTES:
            if name.endswith("position_ids"):
                continue
            raise SettingsError(f"{file}: {name} is {entry['dtype']}; supported: {', '.join(_ITEM_BYTES)}")
        begin, end = entry["data_offsets"]
        tensor = Tensor(file.name, 8 + length + begin, entry["dtype"], tuple(entry["shape"]))
        if end - begin != tensor.size or 8 + length + end > total:
            raise SettingsError(f"{file}: {name} does not lie within the file; fetch the model again")
        # Models that were saved with a head have a prefix.
        found[name.removeprefix("bert.")] = tensor
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} can't be read ({error}); use a sentence-transformers directory") from error


def _expect(path: Path, file: str, config: Any, field: str, allowed: tuple[str, ...], default: str = "") -> None:
    value = config.get(field, default)
    if value not in allowed:
        raise SettingsError(f"{path}/{file}: {field} is {value!r}; supported: {', '.join(allowed)}")
