"""Finds the GGUF file behind `SLM_MODEL_PATH`, converting a Hugging Face directory when it is one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from somagent_slm import quantized
from somagent_slm.huggingface import HuggingFaceModel
from somagent_slm.process import log
from somagent_slm.settings import SettingsError

_GGUF_MAGIC = b"GGUF"
# The vocabulary and the names, beside the weights.
_ROOM_BEYOND_WEIGHTS = 64 * 1024 * 1024


def find_model(path: Path, quantize: str | None = None) -> Path:
    """`path` itself when it is a GGUF file, the one GGUF file of the directory, or the converted Hugging Face directory;
    with `quantize` (`q8_0`) its matrices in 8 bits.

    Raises SettingsError naming what was found and what to do.
    """
    found = _find(path)
    return found if quantize is None else _quantized(found)


def _find(path: Path) -> Path:
    if path.is_dir():
        if not any(path.glob("*.gguf")) and (path / "config.json").exists():
            return _converted(path)
        path = _only_gguf(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != _GGUF_MAGIC:
        raise SettingsError(f"SLM_MODEL_PATH={path} is not a GGUF file (it starts with {magic!r}); convert the model")
    return path


def _only_gguf(directory: Path) -> Path:
    files = sorted(directory.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files)
        raise SettingsError(f"SLM_MODEL_PATH={directory} holds several GGUF files ({names}); name one of them")
    raise SettingsError(
        f"SLM_MODEL_PATH={directory} holds no *.gguf file and no config.json; "
        "put a GGUF file or a complete Hugging Face directory there"
    )


def _converted(directory: Path) -> Path:
    model = HuggingFaceModel(directory)
    return _made_once(model.content_key(), directory, model.size + _ROOM_BEYOND_WEIGHTS, model.write)


def _quantized(file: Path) -> Path:
    # The code that writes is part of the key: another version of it may write other bytes.
    digest = hashlib.sha256(Path(quantized.__file__).read_bytes())
    with file.open("rb") as content:
        while part := content.read(1024 * 1024):
            digest.update(part)
    return _made_once(f"{digest.hexdigest()[:32]}-q8_0", file, file.stat().st_size, lambda new: quantized.quantize(file, new))


def _made_once(key: str, source: Path, room: int, write: Callable[[Path], None]) -> Path:
    """What `write` makes of the source, once for its key; processes that start together wait for the first."""
    cache = cache_folder()
    target = cache / f"{key}.gguf"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            make_room(cache, room)
            unfinished = target.with_suffix(".new")
            write(unfinished)
            unfinished.rename(target)
            log("info", "converted", source=str(source), target=str(target), bytes=target.stat().st_size)
    return target


def cache_folder() -> Path:
    """A folder that no other user can have filled."""
    cache = Path(tempfile.gettempdir()) / f"somagent-slm-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    found = cache.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or cache.is_symlink():
        raise SettingsError(f"{cache} belongs to somebody else or is open to others; remove it or set TMPDIR")
    return cache


def make_room(cache: Path, needed: int) -> None:
    """Raises SettingsError when so many bytes would not fit; better now than after minutes of writing."""
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise SettingsError(
            f"{cache} has {free:,} bytes free, the model needs {needed:,}; enlarge the volume or set TMPDIR"
        )
