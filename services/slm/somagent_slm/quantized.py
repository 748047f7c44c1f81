"""A GGUF file with its matrices in 8 bits: half of the size and of the memory that each token moves, nearly the same words.

Blocks of 32 weights share one float16 scale. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and
`quantize_row_q8_0_ref` in ggml-quants.c
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

# Under their private names: an edit of that file, even a new name, trains the bundled model anew.
from somagent_slm.gguf_file import _ALIGNMENT, _aligned, _read_text, _skip
from somagent_slm.model_spec import SettingsError

_BLOCK = 32
_FLOATS = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_Q8_0 = 8
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("weights", "i1", _BLOCK)])
_ALIGNMENT_KEY = b"general.alignment"


@dataclass(frozen=True)
class _Tensor:
    """`sizes` are counted from the innermost, as in the file; `offset` is from the beginning of the data."""

    name: bytes
    sizes: tuple[int, ...]
    kind: int
    offset: int

    @property
    def count(self) -> int:
        return int(np.prod(self.sizes))

    @property
    def becomes_small(self) -> bool:
        return len(self.sizes) == 2 and self.sizes[0] % _BLOCK == 0

    @property
    def new_size(self) -> int:
        """Bytes in the new file."""
        if self.becomes_small:
            return self.count // _BLOCK * _BLOCK_TYPE.itemsize
        return self.count * _FLOATS[self.kind].itemsize


def quantize(source: Path, target: Path) -> None:
    """Writes `target`. Raises SettingsError when `source` has tensors that are not float32 or float16."""
    with source.open("rb") as old, target.open("wb") as new:
        head, tensors, data = _read_head(old, source)
        new.write(head)
        offset = 0
        for tensor in tensors:
            kind = _Q8_0 if tensor.becomes_small else tensor.kind
            new.write(struct.pack("<Q", len(tensor.name)) + tensor.name)
            new.write(struct.pack(f"<I{len(tensor.sizes)}Q", len(tensor.sizes), *tensor.sizes))
            new.write(struct.pack("<IQ", kind, offset))
            offset += _aligned(tensor.new_size)
        _pad(new)
        for tensor in tensors:
            old.seek(data + tensor.offset)
            weights = np.fromfile(old, _FLOATS[tensor.kind], tensor.count)
            new.write((_blocks(weights) if tensor.becomes_small else weights).tobytes())
            _pad(new)


def _read_head(file: BinaryIO, path: Path) -> tuple[bytes, list[_Tensor], int]:
    """Everything before the tensors' descriptions as it is, the descriptions, and where the data begins."""
    file.seek(8)
    count, values = struct.unpack("<QQ", file.read(16))
    for _ in range(values):
        if _read_text(file) == _ALIGNMENT_KEY:
            raise SettingsError(f"{path} has an alignment of its own; quantize it with llama.cpp's llama-quantize")
        (kind,) = struct.unpack("<I", file.read(4))
        _skip(file, kind)
    end = file.tell()
    tensors = [_read_tensor(file, path) for _ in range(count)]
    data = _aligned(file.tell())
    file.seek(0)
    return file.read(end), tensors, data


def _read_tensor(file: BinaryIO, path: Path) -> _Tensor:
    name = _read_text(file)
    (dimensions,) = struct.unpack("<I", file.read(4))
    sizes = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
    kind, offset = struct.unpack("<IQ", file.read(12))
    if kind not in _FLOATS:
        raise SettingsError(
            f"{path}: tensor {name.decode()} has type {kind}; only float32 and float16 can be quantized: "
            "leave quantize out for this model"
        )
    return _Tensor(name, sizes, kind, offset)


def _blocks(weights: np.ndarray) -> np.ndarray:
    rows = weights.astype(np.float32).reshape(-1, _BLOCK)
    scales = np.abs(rows).max(axis=1) / 127
    factors = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    blocks = np.empty(len(rows), _BLOCK_TYPE)
    blocks["scale"] = scales
    scaled = rows * factors[:, None]
    # Halves go away from zero, as in C; numpy's own rounding takes them to the even number.
    whole = np.floor(np.abs(scaled))
    blocks["weights"] = np.sign(scaled) * (whole + np.floor(2 * (np.abs(scaled) - whole)))
    return blocks


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
