"""Reads safetensors files (https://huggingface.co/docs/safetensors): 8 bytes of length, a JSON header, raw data.

numpy suffices for that, so the image needs no package more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from somagent_slm.settings import SettingsError

# numpy has no bfloat16: its bytes are read as whole numbers.
_KINDS = {"F32": ("float32", np.float32), "F16": ("float16", np.float16), "BF16": ("bfloat16", np.uint16)}
_LARGEST_HEADER = 100_000_000  # as in the reference implementation


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file; `kind` is float32, float16 or bfloat16, `start` is in bytes from the start of the file."""

    file: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    start: int

    def raw(self) -> np.ndarray:
        """The stored numbers, mapped, not read; bfloat16 as uint16."""
        numbers = next(number for kind, number in _KINDS.values() if kind == self.kind)
        return np.memmap(self.file, numbers, "r", self.start, self.shape)

    def widened(self) -> np.ndarray:
        """The same numbers as float32; exact for all three kinds."""
        raw = self.raw()
        if self.kind == "bfloat16":
            # A bfloat16 is the upper half of a float32.
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)


def read_tensors(directory: Path, files: list[Path]) -> dict[str, StoredTensor]:
    """All tensors of the files by name. Raises SettingsError naming the file and what is wrong with it."""
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _file_tensors(file).items():
            if name in tensors:
                raise SettingsError(f"{directory}: {tensors[name].file.name} and {file.name} both hold {name}; remove one")
            tensors[name] = tensor
    return tensors


def weight_files(directory: Path) -> list[Path]:
    """The files that the index names, or the one *.safetensors file. Raises SettingsError when that is not clear."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return [_only_file(directory)]
    files = [directory / name for name in sorted(set(_weight_map(index).values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise SettingsError(f"{index} names {', '.join(absent)}, which {directory} does not hold; download it again")
    return files


def _only_file(directory: Path) -> Path:
    found = sorted(directory.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise SettingsError(
            f"{directory} needs one *.safetensors file, or model.safetensors.index.json beside several (found: {names})"
        )
    return found[0]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weights = json.loads(index.read_bytes())["weight_map"]
        if all(isinstance(name, str) and Path(name).name == name for name in weights.values()):
            return weights
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise SettingsError(f"{index}: weight_map must give a file beside it for each tensor; download the file again")


def _file_tensors(file: Path) -> dict[str, StoredTensor]:
    header, start = _header(file)
    length = file.stat().st_size
    return {
        name: _tensor(file, name, entry, start, length) for name, entry in header.items() if name != "__metadata__"
    }


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The JSON header and where the data starts, in bytes."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(length)) if length <= _LARGEST_HEADER else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise SettingsError(f"{file} is not a safetensors file (a Git LFS pointer, or cut off?); download it again")
    return header, 8 + length


def _tensor(file: Path, name: str, entry: dict[str, Any], data: int, length: int) -> StoredTensor:
    kind = entry["dtype"]
    if kind not in _KINDS:
        raise SettingsError(f"{file}: {name} has dtype {kind}; supported are {', '.join(_KINDS)}; use unquantised weights")
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if end - begin != math.prod(shape) * np.dtype(_KINDS[kind][1]).itemsize or data + end > length:
        raise SettingsError(
            f"{file}: {name} should end at byte {data + end}, the file has {length}; it is cut off, download it again"
        )
    return StoredTensor(file, name, _KINDS[kind][0], shape, data + begin)
