"""Finds the GGUF file behind `SLM_MODEL_PATH`."""

from __future__ import annotations

from pathlib import Path

from somagent_slm.settings import SettingsError

_GGUF_MAGIC = b"GGUF"


def find_model(path: Path) -> Path:
    """`path` itself when it is a GGUF file, or the one GGUF file of the directory.

    Raises SettingsError naming what was found and what to do.
    """
    if path.is_dir():
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
        f"SLM_MODEL_PATH={directory} holds no *.gguf file; convert it with llama.cpp's convert_hf_to_gguf.py"
    )
