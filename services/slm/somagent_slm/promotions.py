"""Models that training has promoted for a tenant: which they are, by signed statements, and their files.

A statement and a lineage are believed when training's key has signed them, a file when its SHA-256 is the one of both.
So the store may be written by whoever it wants: what did not pass training's gate, or was changed since, is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from somagent_slm.metrics import Metrics
from somagent_slm.model_file import cache_folder, make_room
from somagent_slm.model_spec import ModelSpec
from somagent_slm.object_store import Bucket, NotThere
from somagent_slm.process import log
from somagent_slm.settings import PromotedSettings, SettingsError

_FOLDER = "serving/"
_STATEMENT = re.compile(r"serving/([a-z0-9][a-z0-9-]{0,62})\.json")
_PART = 1024 * 1024


class Refused(ValueError):
    """A model that may not serve; the message says why."""


class Promotion(BaseModel):
    """Training's word that a model passed the gate and that a person lets it serve the tenant.

    `number` rises with each promotion of the tenant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)

    tenant: str
    number: int = Field(ge=1)
    run_id: str
    model_hash: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class _Seen:
    """A statement by the ETag of its content; where it was refused, also the folder of its model and the ETags there."""

    statement: str
    refused: str | None = None
    files: dict[str, str] = field(default_factory=dict)


class Promotions:
    """What is promoted now, as models that stand in for `base`. Blocks: belongs to one thread at a time."""

    def __init__(self, settings: PromotedSettings, base: ModelSpec, metrics: Metrics) -> None:
        """Raises SettingsError when the key can't be read."""
        self._bucket = bucket_of(settings)
        self._key = _public_key(settings.key_file)
        self._base, self._metrics = base, metrics
        self._seen: dict[str, _Seen] = {}
        self._serving: dict[str, Promotion] = {}

    def read(self) -> tuple[ModelSpec, ...]:
        """The models that may serve, each with its file on this node.

        What is refused is said once and changes nothing for its tenant; it is looked at again when the content of the
        statement, the lineage or the model has changed. A statement that is gone ends the model.
        Raises OSError while the store can't be reached, SettingsError when the cache has no room.
        """
        listed = self._bucket.listed(_FOLDER)
        statements = {found[1]: etag for key, etag in listed.items() if (found := _STATEMENT.fullmatch(key))}
        for tenant, etag in statements.items():
            if not self._unchanged(tenant, etag):
                self._seen[tenant] = self._take(tenant, etag)
        for tenant in set(self._seen) - set(statements):
            del self._seen[tenant]
            self._serving.pop(tenant, None)
        return tuple(self._spec(promotion) for promotion in self._serving.values())

    def _unchanged(self, tenant: str, statement: str) -> bool:
        seen = self._seen.get(tenant)
        if seen is None or seen.statement != statement:
            return False
        return seen.refused is None or self._bucket.listed(seen.refused) == seen.files

    def _take(self, tenant: str, statement: str) -> _Seen:
        folder, files = None, {}
        try:
            promotion = self._promotion(tenant)
            folder = f"{_directory(promotion)}/"
            # Before they are read: what changes meanwhile is looked at again.
            files = self._bucket.listed(folder)
            self._check_lineage(promotion)
            fetch(self._bucket, self._spec(promotion))
        except (Refused, NotThere) as error:
            self._metrics.changed(f"{self._base.name}@{tenant}", "refused")
            log("error", "a promoted model is refused", tenant=tenant, problem=str(error))
            return _Seen(statement, folder, files)
        self._serving[tenant] = promotion
        return _Seen(statement)

    def _promotion(self, tenant: str) -> Promotion:
        found = opened(self._bucket.read(f"{_FOLDER}{tenant}.json"), "promotion", self._key)
        try:
            promotion = Promotion.model_validate(found)
        except ValidationError as error:
            raise Refused(f"the promotion is not one: {error.errors(include_url=False)[0]['msg']}") from error
        if promotion.tenant != tenant:
            raise Refused(f"the promotion is of the tenant {promotion.tenant}")
        serving = self._serving.get(tenant)
        if serving is not None and promotion.number < serving.number:
            raise Refused(f"the promotion has the number {promotion.number}, and {serving.number} serves: it is an old one")
        return promotion

    def _check_lineage(self, promotion: Promotion) -> None:
        lineage = opened(self._bucket.read(f"{_directory(promotion)}/lineage.json"), "lineage", self._key)
        expected = {"tenant": promotion.tenant, "runId": promotion.run_id, "modelHash": promotion.model_hash}
        for field, value in expected.items():
            if lineage.get(field) != value:
                raise Refused(f"the lineage has {lineage.get(field)!r} as {field}, the promotion {value!r}")

    def _spec(self, promotion: Promotion) -> ModelSpec:
        sha256 = promotion.model_hash
        name = f"{self._base.name}@{promotion.tenant}"
        return self._base.model_copy(update={"name": name, "path": _place(sha256), "sha256": sha256})


def bucket_of(settings: PromotedSettings) -> Bucket:
    return Bucket(settings.url, settings.credentials_directory, settings.authority)


def fetch(bucket: Bucket, spec: ModelSpec) -> None:
    """Sees to it that the file of a promoted model is on this node, with the hash that the spec names.

    Raises Refused when the store has another file, OSError when it can't be reached.
    """
    tenant, sha256 = spec.name.partition("@")[2], spec.sha256
    if spec.path.exists() and _hash_of(spec.path) == sha256:
        return
    with bucket.open(f"{tenant}/{sha256}/model.gguf") as source, tempfile.NamedTemporaryFile(dir=cache_folder()) as new:
        make_room(cache_folder(), int(source.headers.get("content-length", "0")))
        digest = hashlib.sha256()
        while part := source.read(_PART):
            digest.update(part)
            new.write(part)
        new.flush()
        if digest.hexdigest() != sha256:
            raise Refused(f"the model in the store has the SHA-256 {digest.hexdigest()}, its lineage says {sha256}")
        # Whole or not at all: another replica may load it in this moment.
        Path(f"{new.name}.gguf").hardlink_to(new.name)
        Path(f"{new.name}.gguf").rename(spec.path)


def opened(document: bytes, field: str, key: Ed25519PublicKey) -> dict[str, Any]:
    """What `{"<field>":…,"signature":"…"}` holds, in canonical JSON (RFC 8785). Raises Refused unless the key signed it.

    The signature is over the very bytes that are read, so nothing has to be put into canonical form here.
    """
    head, middle, tail = f'{{"{field}":'.encode(), b',"signature":"', b'"}'
    content, found, signature = document.removeprefix(head).removesuffix(tail).rpartition(middle)
    if not (document.startswith(head) and document.endswith(tail) and found):
        raise Refused(f"it is no signed {field}")
    try:
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, ValueError) as error:
        raise Refused(f"the signature of the {field} is wrong") from error
    told = json.loads(content)
    if not isinstance(told, dict):
        raise Refused(f"the {field} is no object")
    return told


def _directory(promotion: Promotion) -> str:
    return f"{promotion.tenant}/{promotion.model_hash}"


def _place(sha256: str) -> Path:
    return cache_folder() / f"promoted-{sha256}.gguf"


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _public_key(path: Path) -> Ed25519PublicKey:
    problem = f"SLM_PROMOTED_KEY_FILE={path} is no public Ed25519 key as PEM; mount the one of training's lineages"
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise SettingsError(problem) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(problem)
    return key
