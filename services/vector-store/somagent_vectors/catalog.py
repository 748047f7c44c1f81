"""All collections of a data folder: `collections/<name>`, `snapshots/<name>`, and `scratch`, emptied at the start."""

from __future__ import annotations

import asyncio
import fcntl
import re
import secrets
from pathlib import Path
from typing import IO

from somagent_vectors.collection import Collection
from somagent_vectors.errors import QdrantError, not_found, wrong_input
from somagent_vectors.files import remove, sync
from somagent_vectors.schema import Schema
from somagent_vectors.snapshots import Snapshots, Unpacked

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class CatalogError(Exception):
    """The data folder can't be used; the message says why."""


class Catalog:
    """Belongs to one event loop, and to one process: the folder is locked."""

    def __init__(self, folder: Path) -> None:
        """Opens every collection. Raises CatalogError."""
        self._root = folder / "collections"
        self._scratch = folder / "scratch"
        self._lock = _lock(folder)
        remove(self._scratch)
        for path in (self._root, self._scratch, folder / "snapshots"):
            path.mkdir(exist_ok=True)
        self.snapshots = Snapshots(folder / "snapshots", self._scratch)
        self._collections = {path.name: _load(path) for path in sorted(self._root.iterdir())}
        self._making = asyncio.Lock()

    @property
    def collections(self) -> list[Collection]:
        return list(self._collections.values())

    def find(self, name: str) -> Collection | None:
        return self._collections.get(name)

    def get(self, name: str) -> Collection:
        collection = self._collections.get(name)
        if collection is None:
            raise not_found(f"Collection `{name}` doesn't exist!")
        return collection

    async def create(self, name: str, schema: Schema) -> None:
        _check_name(name)
        async with self._making:
            if name in self._collections:
                raise QdrantError(409, f"Wrong input: Collection `{name}` already exists!")
            draft = self._scratch / secrets.token_hex(8)
            draft.mkdir()
            made = Collection.create(name, draft, schema)
            await made.close()
            self._publish(draft, name)

    async def delete(self, name: str) -> bool:
        """Whether there was one."""
        async with self._making:
            collection = self._collections.pop(name, None)
            if collection is None:
                return False
            await collection.close()
            grave = self._scratch / secrets.token_hex(8)
            collection.folder.rename(grave)
            sync(self._root)
        await asyncio.to_thread(remove, grave)
        return True

    async def recover(self, name: str, snapshot: Unpacked) -> None:
        """Makes the collection what the snapshot holds; one that is there keeps answering until the changeover."""
        _check_name(name)
        try:
            if name not in self._collections:
                await self.create(name, snapshot.schema)
            await self.get(name).adopt(snapshot.shard, snapshot.schema)
        finally:
            await asyncio.to_thread(remove, snapshot.folder)

    async def close(self) -> None:
        for collection in self.collections:
            await collection.close()
        self._lock.close()

    def _publish(self, draft: Path, name: str) -> None:
        draft.rename(self._root / name)
        sync(self._root)
        self._collections[name] = _load(self._root / name)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise wrong_input(f"collection name {name!r} is not usable; use up to 200 letters, digits, `_`, `-` and `.`")


def _lock(folder: Path) -> IO[str]:
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CatalogError(f"{folder} is in use by another process; give each server a folder of its own") from error
    return file


def _load(path: Path) -> Collection:
    try:
        return Collection.load(path.name, path)
    except BaseException as error:
        raise CatalogError(f"collection {path.name} in {path} can't be opened: {error}; restore a snapshot") from error
