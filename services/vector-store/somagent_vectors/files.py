"""Writes that survive a loss of power: file first, then the entry in its folder."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file: a reader, and a restart, sees all of the old or all of the new."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    draft.write_bytes(content)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))


def copy_tree(source: Path, target: Path) -> None:
    """Copies a folder without writing the holes of its files. Raises OSError."""
    command = ["cp", "--archive", "--sparse=always", "--reflink=auto", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise OSError(f"copying {source} failed: {done.stderr.strip()}")


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
