"""Promoted models from a real object store: what is believed, what is refused, and when it is looked at again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from somagent_slm import promotions
from somagent_slm.engine import Engine
from somagent_slm.metrics import Metrics
from somagent_slm.model_spec import ModelSpec
from somagent_slm.promotions import Promotions
from somagent_slm.settings import PromotedSettings
from somagent_slm.shelf import Shelf
from tests.conftest import ROOT, Files

REPOSITORY = ROOT.parent.parent
KEY = Ed25519PrivateKey.generate()


class Store:
    """The store as training writes it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        # Lines before it say that the server is waited for.
        described = next(line for line in map(json.loads, process.stdout or []) if "caFile" in line)
        (folder / "key.pem").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.settings = PromotedSettings(
            described["url"], Path(described["credentialsDir"]), Path(described["caFile"]), folder / "key.pem", 1, 4, 60
        )

    def put(self, key: str, content: bytes) -> None:
        assert self._process.stdin and self._process.stdout
        file = self._folder / "content"
        file.write_bytes(content)
        self._process.stdin.write(json.dumps({"key": key, "file": str(file)}) + "\n")
        self._process.stdin.flush()
        assert json.loads(self._process.stdout.readline()) == {"put": key}

    def lineage(self, tenant: str, content: bytes) -> None:
        told = {"tenant": tenant, "runId": f"run-{sha256(content)}", "modelHash": sha256(content)}
        self.put(f"{tenant}/{sha256(content)}/lineage.json", signed("lineage", told))

    def model(self, tenant: str, content: bytes, stored: bytes | None = None) -> None:
        self.put(f"{tenant}/{sha256(content)}/model.gguf", content if stored is None else stored)

    def announce(self, tenant: str, number: int, content: bytes) -> None:
        told = {"tenant": tenant, "number": number, "runId": f"run-{sha256(content)}", "modelHash": sha256(content)}
        self.put(f"serving/{tenant}.json", signed("promotion", told))

    def promote(self, tenant: str, number: int, content: bytes) -> None:
        self.model(tenant, content)
        self.lineage(tenant, content)
        self.announce(tenant, number, content)


def signed(field: str, told: dict[str, Any]) -> bytes:
    content = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    return b'{"' + field.encode() + b'":' + content + b',"signature":"' + b64encode(KEY.sign(content)) + b'"}'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    command = [str(REPOSITORY / "node_modules/.bin/node"), str(ROOT / "tests/object-store.ts")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield Store(process, tmp_path_factory.mktemp("store"))
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node that has taken no model yet."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


class Reader:
    """The model server's eyes."""

    def __init__(self, store: Store, files: Files, module: ModuleType = promotions) -> None:
        self._metrics = Metrics()
        spec = ModelSpec(name="soma-tiny", path=files.model)
        self._promotions: Promotions = module.Promotions(store.settings, spec, self._metrics)

    def serves(self, tenant: str) -> str | None:
        """The hash of the model that may serve the tenant now."""
        return {spec.name: spec.sha256 for spec in self._promotions.read()}.get(f"soma-tiny@{tenant}")

    def refusals(self, tenant: str) -> int:
        start = f'slm_model_changes_total{{model="soma-tiny@{tenant}",outcome="refused"}} '
        lines = self._metrics.text().decode().splitlines()
        return next((int(float(line.removeprefix(start))) for line in lines if line.startswith(start)), 0)


def other(files: Files, number: int) -> bytes:
    """The bundled model with another last weight: llama.cpp takes it as gladly."""
    content = bytearray(files.model.read_bytes())
    content[-1] = number
    return bytes(content)


def in_one_second(act: Any) -> Any:
    """What came of it within one second by the clock, which is all that the store's times tell."""
    for _ in range(20):
        time.sleep(1 - time.time() % 1)
        started = int(time.time())
        result = act()
        if int(time.time()) == started:
            return result
    raise AssertionError("never done within one second")


def test_two_promotions_within_one_second_are_two(store: Store, files: Files) -> None:
    first, second = other(files, 1), other(files, 2)
    reader = Reader(store, files)
    number = iter(range(1, 100))
    for content in (first, second):
        store.model("twice", content)
        store.lineage("twice", content)

    def act() -> tuple[str | None, str | None]:
        store.announce("twice", next(number), first)
        seen = reader.serves("twice")
        store.announce("twice", next(number), second)
        return seen, reader.serves("twice")

    assert in_one_second(act) == (sha256(first), sha256(second))


def test_what_was_refused_and_put_right_within_one_second_serves(store: Store, files: Files) -> None:
    """The statement is the same to the byte, and so is its time; only the file has changed."""
    contents = iter(other(files, 10 + number) for number in range(20))
    reader = Reader(store, files)
    number = iter(range(1, 100))

    def act() -> tuple[bool, bool, bool]:
        content, mine = next(contents), next(number)
        store.lineage("again", content)
        store.model("again", content, stored=content[:-1] + b"\xff")
        store.announce("again", mine, content)
        before = reader.serves("again") == sha256(content)
        store.model("again", content)
        store.announce("again", mine, content)
        return before, reader.serves("again") == sha256(content), reader.refusals("again") > 0

    assert in_one_second(act) == (False, True, True)


def test_what_was_refused_is_said_once(store: Store, files: Files) -> None:
    content = other(files, 40)
    store.model("once", content, stored=content[:-1] + b"\xfe")
    store.lineage("once", content)
    store.announce("once", 1, content)
    reader = Reader(store, files)
    assert [reader.serves("once") for _ in range(3)] == [None] * 3
    store.announce("once", 1, content)
    assert (reader.serves("once"), reader.refusals("once")) == (None, 1)
    store.put("serving/once.json", b"no statement")
    assert (reader.serves("once"), reader.serves("once"), reader.refusals("once")) == (None, None, 2)


def test_a_tenant_without_its_files_holds_nobody_up(store: Store, files: Files) -> None:
    first, second = other(files, 50), other(files, 51)
    # Before the other one in every order.
    store.announce("a-first", 1, first)
    store.promote("b-second", 1, second)
    reader = Reader(store, files)
    assert (reader.serves("b-second"), reader.serves("a-first")) == (sha256(second), None)
    store.lineage("a-first", first)
    assert reader.serves("a-first") is None
    store.model("a-first", first)
    assert reader.serves("a-first") == sha256(first)


def changed(content: bytes) -> bytes:
    """One bit of a weight."""
    place = len(content) - 100
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def generates(model: Path) -> bool:
    engine = Engine(model, slots=1, threads=1, context=0)
    try:
        return asyncio.run(engine.answers(freshness=10))
    finally:
        engine.close()


def test_only_its_hash_tells_a_changed_model(store: Store, files: Files, tmp_path: Path) -> None:
    """Every signature is right and llama.cpp answers with it; without the check it would serve."""
    content = other(files, 60)
    store.promote("changed", 1, content)
    store.model("changed", content, stored=changed(content))
    (tmp_path / "changed.gguf").write_bytes(changed(content))
    assert generates(tmp_path / "changed.gguf")

    reader = Reader(store, files)
    assert (reader.serves("changed"), reader.refusals("changed")) == (None, 1)
    assert not list(tmp_path.glob(f"somagent-slm-*/promoted-{sha256(content)}*"))

    blind = Reader(store, files, without("        if digest.hexdigest() != sha256:\n", "        if False:\n"))
    assert (blind.serves("changed"), blind.refusals("changed")) == (sha256(content), 0)


def test_a_file_that_was_changed_on_the_node_is_taken_anew(store: Store, files: Files, tmp_path: Path) -> None:
    content = other(files, 70)
    store.promote("cached", 1, content)
    assert Reader(store, files).serves("cached") == sha256(content)
    [file] = tmp_path.glob(f"somagent-slm-*/promoted-{sha256(content)}.gguf")
    file.write_bytes(changed(content))
    assert Reader(store, files).serves("cached") == sha256(content)
    assert sha256(file.read_bytes()) == sha256(content)
    # Without the check the changed file would stay.
    file.write_bytes(changed(content))
    blind = without(" and _hash_of(spec.path) == sha256", "")
    assert Reader(store, files, blind).serves("cached") == sha256(content)
    assert file.read_bytes() == changed(content)


def without(check: str, instead: str) -> ModuleType:
    """The module with a fault planted in it."""
    source = Path(promotions.__file__).read_text()
    assert source.count(check) == 1
    module = ModuleType("faulty_promotions")
    sys.modules[module.__name__] = module
    exec(source.replace(check, instead), module.__dict__)  # noqa: S102
    return module


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def specs(*tenants: str) -> tuple[ModelSpec, ...]:
    return tuple(ModelSpec(name=f"soma-tiny@{tenant}", path=Path("model.gguf")) for tenant in tenants)


def test_the_model_that_nobody_asked_for_the_longest_gives_place() -> None:
    clock = Clock()
    shelf = Shelf(2, 60, clock)

    def chosen(*tenants: str) -> str:
        return " ".join(spec.name.partition("@")[2] for spec in shelf.choose(specs(*tenants)))

    assert chosen("a", "b", "c") == "a b"
    assert (shelf.held, shelf.waiting) == (2, 1)
    # Whom nobody ever asked for has no claim; a stranger's name is not even remembered.
    shelf.asked("soma-tiny@a")
    shelf.asked("soma-tiny@nobody")
    clock.now += 1
    shelf.asked("soma-tiny@c")
    assert chosen("a", "b", "c") == "a c"
    # Both were asked for lately: who comes now waits.
    clock.now += 30
    shelf.asked("soma-tiny@b")
    assert chosen("a", "b", "c") == "a c"
    # Now one of them has not been for long enough; the other has.
    shelf.asked("soma-tiny@a")
    clock.now += 31
    assert chosen("a", "b", "c") == "a b"
    # Without requests nothing moves, however long it takes.
    clock.now += 10_000
    assert chosen("a", "b", "c") == "a b"


def test_a_model_that_is_gone_leaves_its_place() -> None:
    shelf = Shelf(1, 60)
    assert shelf.choose(specs("a", "b")) == specs("a")
    assert shelf.choose(specs("b")) == specs("b")
    assert shelf.choose(()) == ()
    assert (shelf.held, shelf.waiting) == (0, 0)


def test_everything_is_held_where_there_is_room() -> None:
    shelf = Shelf(3, 60)
    assert shelf.choose(specs("a", "b", "c")) == specs("a", "b", "c")
