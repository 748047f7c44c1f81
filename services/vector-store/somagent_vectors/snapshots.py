"""Snapshots: a tar file of a shard and its schema, with a checksum.

The engine reads the snapshots of Qdrant's server but makes none, so the file is our own: the server can't read it, and
a file of the server is refused here by name instead of being misread.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import io
import json
import re
import secrets
import tarfile
import urllib.parse
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import orjson

from somagent_vectors.collection import Collection
from somagent_vectors.errors import QdrantError, not_found, unsupported, wrong_input
from somagent_vectors.fields import Json
from somagent_vectors.files import remove, sync, sync_tree, write_atomically
from somagent_vectors.schema import Schema

FORMAT = "somagent-edge-1"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.snapshot")


@dataclass(frozen=True)
class Unpacked:
    """A snapshot's content; `shard` is a folder that its user moves away, `folder` what is removed afterwards."""

    folder: Path
    shard: Path
    schema: Schema


class Snapshots:
    """The snapshots of all collections below one folder."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder = folder
        self._scratch = scratch

    async def create(self, collection: Collection) -> Json:
        scratch = self._scratch / secrets.token_hex(8)
        scratch.mkdir()
        try:
            await collection.copy_to(scratch / "shard")
            schema = collection.schema
            return await asyncio.to_thread(self._pack, collection.name, schema, scratch)
        finally:
            await asyncio.to_thread(remove, scratch)

    def list(self, collection: str) -> list[Json]:
        folder = self._folder / collection
        return [_described(path) for path in sorted(folder.glob("*.snapshot"))] if folder.is_dir() else []

    def path(self, collection: str, name: str) -> Path:
        """Where a snapshot lies. Raises QdrantError 404."""
        path = self._folder / collection / name
        if not _NAME.fullmatch(name) or not path.is_file():
            raise not_found(f"Snapshot {name} not found")
        return path

    def delete(self, collection: str, name: str) -> None:
        path = self.path(collection, name)
        path.unlink()
        path.with_name(f"{name}.checksum").unlink(missing_ok=True)
        sync(path.parent)

    def located(self, location: str) -> Path:
        """The file that a `file://` location names. Only snapshots of this server are read; no address is fetched."""
        address = urllib.parse.urlsplit(location)
        if address.scheme != "file":
            raise unsupported(f"a snapshot at {address.scheme}://", "upload it, or name a file:// of this server")
        path = Path(urllib.parse.unquote(address.path)).resolve()
        if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
            raise not_found(f"Snapshot file {path} does not exist below {self._folder}")
        return path

    async def receive(self, chunks: AsyncIterator[bytes]) -> Path:
        """Stores an upload. The caller removes its folder."""
        folder = self._scratch / secrets.token_hex(8)
        folder.mkdir()
        path = folder / "upload.snapshot"
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
        except BaseException:
            remove(folder)
            raise
        return path

    async def unpack(self, path: Path, checksum: str | None) -> Unpacked:
        """Checks and unpacks. Raises QdrantError 400 for a damaged or foreign file."""
        return await asyncio.to_thread(self._unpack, path, checksum)

    def _pack(self, collection: str, schema: Schema, scratch: Path) -> Json:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H-%M-%S")
        name = f"{collection}-{secrets.randbits(48)}-{stamp}.snapshot"
        manifest = {"format": FORMAT, "engine": version("qdrant-edge-py"), "schema": schema.to_json()}
        draft = scratch / name
        # The engine reserves room in its files: zeros, which compress to nothing.
        with tarfile.open(draft, "w:gz", compresslevel=1) as tar:
            _add_bytes(tar, "manifest.json", orjson.dumps(manifest))
            tar.add(scratch / "shard", "shard")
        sync(draft)
        folder = self._folder / collection
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{name}.checksum", _digest(draft).encode())
        draft.rename(folder / name)
        sync(folder)
        return _described(folder / name)

    def _unpack(self, path: Path, checksum: str | None) -> Unpacked:
        expected = checksum or _recorded(path)
        if expected is not None and _digest(path) != expected.lower():
            raise wrong_input(f"Snapshot checksum mismatch: expected {expected}, got {_digest(path)}")
        folder = self._scratch / secrets.token_hex(8)
        folder.mkdir()
        try:
            with tarfile.open(path) as tar:
                tar.extractall(folder, filter="data")
            manifest = json.loads((folder / "manifest.json").read_text())
            if manifest["format"] != FORMAT:
                raise wrong_input(f"the snapshot has format {manifest['format']}, this server reads {FORMAT}")
            sync_tree(folder / "shard")
            return Unpacked(folder, folder / "shard", Schema.from_json(manifest["schema"]))
        except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError, ValueError, TypeError) as error:
            remove(folder)
            reason = f"the file is no snapshot of this server ({error}); Qdrant's own are not readable here"
            raise wrong_input(reason) from error
        except QdrantError:
            remove(folder)
            raise


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(path: Path) -> str | None:
    beside = path.with_name(f"{path.name}.checksum")
    return beside.read_text() if beside.exists() else None


def _described(path: Path) -> Json:
    status = path.stat()
    created = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
    return {
        "name": path.name,
        "creation_time": created.strftime("%Y-%m-%dT%H:%M:%S"),
        "size": status.st_size,
        "checksum": _recorded(path),
    }
