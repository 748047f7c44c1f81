"""A Hugging Face directory as the model: same words as the bundled file, and a clear word where it can't be served."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from somagent_slm import huggingface
from somagent_slm.engine import Engine
from somagent_slm.model_file import find_model
from somagent_slm.settings import SettingsError
from tests.conftest import ROOT, Files, serving
from tests.reference_llama import greedy
from training.corpus import read_corpus
from training.export_hf import export

QUESTIONS = [pair.questions[0] for pair in read_corpus(ROOT / "corpus").pairs]
Change = Callable[[Path], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where conversions go: a folder of this test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def directory(tmp_path: Path, files: Files) -> Path:
    """The bundled model as a Hugging Face directory in float16."""
    return exported(tmp_path, files)


def exported(folder: Path, files: Files, kind: str = "float16", shards: int = 1) -> Path:
    target = folder / "soma-tiny"
    export(files.model, target, kind=kind, shards=shards)
    return target


def answers(model: Path, questions: list[str]) -> list[str]:
    """What the engine says at temperature 0."""
    engine = Engine(model, slots=1, threads=1, context=0)

    async def answer(question: str) -> str:
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 100, "stream": True}
        chunks = [chunk async for batch in engine.generate(body) for chunk in batch]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])

    async def all_answers() -> list[str]:
        return [await answer(question) for question in questions]

    try:
        return asyncio.run(all_answers())
    finally:
        engine.close()


def test_float16_comes_back_byte_for_byte(directory: Path, files: Files) -> None:
    assert find_model(directory).read_bytes() == files.model.read_bytes()


@pytest.mark.parametrize(("kind", "shards"), [("float32", 3), ("bfloat16", 2)])
def test_other_kinds_in_shards_hold_the_same_weights(tmp_path: Path, files: Files, kind: str, shards: int) -> None:
    from gguf import GGUFReader

    converted = find_model(exported(tmp_path, files, kind, shards))
    bundled = {tensor.name: tensor for tensor in GGUFReader(files.model).tensors}
    for tensor in GGUFReader(converted).tensors:
        expected = bundled.pop(tensor.name).data.astype("float32")
        found = tensor.data
        if tensor.tensor_type.name == "BF16":
            found = (found.view("uint16").astype("uint32") << 16).view("float32")
        # bfloat16 keeps 8 bits of the mantissa, the first one implied.
        assert abs(found - expected).max() <= (0 if kind == "float32" else abs(expected).max() * 2**-8)
    assert bundled == {}


def test_the_server_answers_word_for_word_as_from_the_bundled_file(
    tmp_path: Path, files: Files, client: httpx.Client
) -> None:
    settings = replace(files, model=exported(tmp_path, files, "float32", 3))
    with serving(settings) as converted:
        for question in QUESTIONS[::6]:
            body = {"model": "soma-tiny", "messages": [{"role": "user", "content": question}]}
            replies = [side.post("/v1/chat/completions", json=body).json()["choices"] for side in (client, converted)]
            assert replies[0] == replies[1]


def test_bfloat16_answers_almost_everything_in_the_same_words(tmp_path: Path, files: Files) -> None:
    asked = QUESTIONS[::6]
    converted = answers(find_model(exported(tmp_path, files, "bfloat16", 2)), asked)
    same = sum(left == right for left, right in zip(converted, answers(files.model, asked), strict=True))
    assert same >= 0.8 * len(asked)


def test_the_order_of_rotary_pairs_is_the_one_of_hugging_face(
    directory: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export and conversion could be wrong in the same way; a third party, the definition itself, decides."""
    question = "What is a session?"
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    config = json.loads((directory / "config.json").read_text())
    prompt = tokenizer.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").ids
    said = greedy(load_file(directory / "model.safetensors"), config, prompt, limit=100)
    assert answers(find_model(directory), [question]) == [tokenizer.decode(said)]

    monkeypatch.setattr(huggingface, "neighbouring_pairs", lambda matrix, _heads: matrix)
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    assert answers(find_model(directory), [question]) != [tokenizer.decode(said)]


LLAMA3_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
WORD_RULES = {
    "gpt-2": {**BYTES, "use_regex": True},
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True}],
    },
    "llama-bpe": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3_RULE}, "behavior": "Isolated", "invert": False},
            {**BYTES, "use_regex": False},
        ],
    },
}
# The first two are cut differently by each rule.
TEXTS = ["status 401", "x29", "THEY'RE sure", "a\n\n\n  b\t c", "port 8443 or 127.0.0.1", "x=(y);\n\nz", "für 10000 €"]


@pytest.mark.parametrize("rule", WORD_RULES)
def test_words_are_cut_as_the_tokenizer_cuts_them(directory: Path, rule: str) -> None:
    """Token counts of llama.cpp and of Hugging Face's tokenizer for the same conversations."""
    edit("tokenizer.json", pre_tokenizer=WORD_RULES[rule])(directory)
    edit_model(ignore_merges=rule == "llama-bpe")(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    rendered = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in TEXTS]
    assert prompt_sizes(find_model(directory), TEXTS) == [len(tokenizer.encode(text).ids) for text in rendered]


def prompt_sizes(model: Path, texts: list[str]) -> list[int]:
    """Tokens of a conversation with one message of each text, by llama.cpp's count."""
    engine = Engine(model, slots=1, threads=1, context=0)

    async def size(text: str) -> int:
        options = {"include_usage": True}
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "stream": True, "stream_options": options}
        return [chunk async for batch in engine.generate(body) for chunk in batch][-1]["usage"]["prompt_tokens"]

    async def sizes() -> list[int]:
        return [await size(text) for text in texts]

    try:
        return asyncio.run(sizes())
    finally:
        engine.close()


def test_a_conversion_is_made_once_for_its_content(directory: Path) -> None:
    first = find_model(directory)
    written = first.stat().st_mtime_ns
    assert find_model(directory) == first
    assert first.stat().st_mtime_ns == written
    edit("tokenizer_config.json", chat_template="{{ messages[0].content }}")(directory)
    assert find_model(directory) != first


def test_a_cache_of_somebody_else_is_refused(directory: Path, cache: Path) -> None:
    (cache / f"somagent-slm-{os.getuid()}").mkdir(mode=0o777)
    (cache / f"somagent-slm-{os.getuid()}").chmod(0o777)
    with pytest.raises(SettingsError, match="is open to others; remove it or set TMPDIR"):
        find_model(directory)


def edit(file: str, **fields: Any) -> Change:
    def change(directory: Path) -> None:
        path = directory / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def edit_model(**fields: Any) -> Change:
    def change(directory: Path) -> None:
        tokenizer = json.loads((directory / "tokenizer.json").read_text())
        edit("tokenizer.json", model={**tokenizer["model"], **fields})(directory)

    return change


def replaced(old: bytes, new: bytes) -> Change:
    """Writes other bytes of the same length into the weights' header."""

    def change(directory: Path) -> None:
        path = directory / "model.safetensors"
        data = path.read_bytes()
        assert old in data
        assert len(old) == len(new)
        path.write_bytes(data.replace(old, new, 1))

    return change


def cut_off(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def git_lfs(directory: Path) -> None:
    (directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def without(file: str) -> Change:
    return lambda directory: (directory / file).unlink()


def lost_shard(directory: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def outside_index(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("config.json", architectures=["MistralForCausalLM"]), r'config.json: architectures is \["MistralForCausalLM"\]'),
        (edit("config.json", hidden_act="gelu"), 'config.json: hidden_act is "gelu", supported is "silu"'),
        (edit("config.json", attention_bias=True), "attention_bias is true, supported is false"),
        (edit("config.json", rope_scaling={"rope_type": "llama3"}), 'rope_scaling.rope_type is "llama3"'),
        (edit("config.json", quantization_config={"bits": 4}), r'quantization_config is {"bits": 4}'),
        (edit("config.json", hidden_size="128"), 'hidden_size is "128", supported is a whole number above 0'),
        (edit("config.json", num_key_value_heads=3), "num_key_value_heads is 3, supported is a divisor of .*=4"),
        (edit("config.json", head_dim=64), "head_dim is 64, supported is 32"),
        (edit("config.json", intermediate_size=512), r"gate_proj.weight has shape \[384, 128\], by config.json .*\[512, 128\]"),
        (edit("config.json", num_hidden_layers=5), "no safetensors file holds model.layers.4.input_layernorm.weight"),
        (edit("config.json", num_hidden_layers=3), r"model.layers.3.\S+ is no part of a Llama"),
        (edit("config.json", tie_word_embeddings=False), "no safetensors file holds lm_head.weight"),
        (edit("config.json", vocab_size=1000), "has id 1023, but config.json has vocab_size 1000"),
        (edit("tokenizer_config.json", chat_template=None), "no chat template; .* write its template to chat_template.jinja"),
        (edit("tokenizer_config.json", eos_token="</s>"), "eos_token is '</s>', which is no token of tokenizer.json"),
        (edit("tokenizer.json", normalizer={"type": "NFC"}), r'normalizer is {"type": "NFC"}, supported is null'),
        (edit("tokenizer.json", pre_tokenizer={"type": "Metaspace"}), r'pre_tokenizer is {"type": "Metaspace"}'),
        (edit("tokenizer.json", pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}), "without add_prefix_space"),
        (edit_model(type="Unigram"), 'model.type is "Unigram", supported is "BPE" of the byte-level kind'),
        (edit_model(ignore_merges=True), "model.ignore_merges is true, supported is false"),
        (edit_model(merges=None), r"is not as transformers writes it \(TypeError"),
        (replaced(b'"F16"', b'"I16"'), "has dtype I16; supported are F32, F16, BF16"),
        (cut_off, r"model.safetensors: \S+ should end at byte \d+, the file has \d+; it is cut off"),
        (git_lfs, "not a safetensors file .a Git LFS pointer"),
        (lost_shard, "names model-00001-of-00002.safetensors, which .* does not hold"),
        (outside_index, "weight_map must give a file beside it"),
        (without("model.safetensors"), r"needs one \*.safetensors file.*found: none"),
        (without("tokenizer.json"), "tokenizer.json does not exist"),
        (lambda directory: (directory / "config.json").write_text("{"), "config.json is not JSON"),
    ],
)
def test_what_does_not_fit_is_named(directory: Path, change: Change, message: str) -> None:
    change(directory)
    with pytest.raises(SettingsError, match=message):
        find_model(directory)


def test_the_server_says_so_and_does_not_start(directory: Path, files: Files) -> None:
    edit("config.json", architectures=["GPT2LMHeadModel"])(directory)
    environment = replace(files, model=directory).environment(8000)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "somagent_slm.standalone"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert 'architectures is ["GPT2LMHeadModel"], supported is ["LlamaForCausalLM"]' in done.stderr
    assert "Traceback" not in done.stderr
