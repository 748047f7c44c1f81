"""Turns a Hugging Face `tokenizer.json` of the byte-level BPE kind into the vocabulary of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from somagent_slm.gguf_file import BpeVocabulary
from somagent_slm.hf_config import read_json, unsupported
from somagent_slm.settings import SettingsError

# How text is cut before merging. llama.cpp has these rules compiled in, under names; a rule must be exactly one of them
# (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp), else words would be cut elsewhere than in training.
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", _LLAMA3_PATTERN), ("ByteLevel", False)): "llama-bpe",
}


def read_vocabulary(directory: Path, config: dict[str, Any]) -> BpeVocabulary:
    """Reads tokenizer.json, tokenizer_config.json and chat_template.jinja of the directory.

    Raises SettingsError naming the file, the field and what is supported.
    """
    path = directory / "tokenizer.json"
    tokenizer = read_json(path)
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise unsupported(path, "model.type", model.get("type"), '"BPE" of the byte-level kind')
    if tokenizer.get("normalizer") is not None:
        raise unsupported(path, "normalizer", tokenizer["normalizer"], "null")
    tokens, unused = _tokens(path, tokenizer, config["vocab_size"])
    added = tokenizer.get("added_tokens") or []
    options = _options(directory)
    begin = _named_token(options, config, tokens, "bos")
    return BpeVocabulary(
        tokens=tokens,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        control_tokens=frozenset(token["content"] for token in added if token["special"]),
        added_tokens=frozenset(token["content"] for token in added if not token["special"]),
        unused_tokens=unused,
        end_token=_end_token(directory, options, config, tokens),
        begin_token=begin,
        add_begin_token=begin is not None and options.get("add_bos_token", _template_begins_with(tokenizer, begin)),
        chat_template=_chat_template(directory, options),
        pre_tokenizer=_pre_tokenizer(path, tokenizer),
    )


def _tokens(path: Path, tokenizer: dict[str, Any], size: int) -> tuple[list[str], frozenset[str]]:
    """The token of every id below `size`, and those that only fill holes."""
    ids = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    ids |= {token["id"]: token["content"] for token in tokenizer.get("added_tokens") or []}
    if max(ids) >= size:
        raise SettingsError(
            f"{path}: {ids[max(ids)]!r} has id {max(ids)}, but config.json has vocab_size {size}; "
            "take both files from the same model"
        )
    holes = {index: f"[PAD{index}]" for index in range(size) if index not in ids}
    tokens = [ids.get(index) or holes[index] for index in range(size)]
    return tokens, frozenset(holes.values())


def _pre_tokenizer(path: Path, tokenizer: dict[str, Any]) -> str:
    rule = tokenizer.get("pre_tokenizer") or {}
    parts = rule.get("pretokenizers", []) if rule.get("type") == "Sequence" else [rule]
    name = _PRE_TOKENIZERS.get(tuple(_part(part) for part in parts))
    if name is None or any(part.get("add_prefix_space") for part in parts):
        raise unsupported(path, "pre_tokenizer", rule, "the one of GPT-2, SmolLM or Llama 3, without add_prefix_space")
    # llama.cpp looks up whole words first for this kind, and for no other.
    if bool(tokenizer["model"].get("ignore_merges")) != (name == "llama-bpe"):
        raise unsupported(path, "model.ignore_merges", tokenizer["model"].get("ignore_merges"), json.dumps(name == "llama-bpe"))
    return name


def _part(part: dict[str, Any]) -> tuple[str | None, Any]:
    kind = part.get("type")
    if kind == "Split":
        plain = part.get("behavior") == "Isolated" and not part.get("invert")
        return kind, part.get("pattern", {}).get("Regex") if plain else None
    return kind, part.get("use_regex", True) if kind == "ByteLevel" else part.get("individual_digits")


def _options(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer_config.json"
    return read_json(path) if path.exists() else {}


def _named_token(options: dict[str, Any], config: dict[str, Any], tokens: list[str], role: str) -> str | None:
    """The token that ends (`eos`) or begins (`bos`) a text: of a chat model, tokenizer_config.json knows better."""
    token = options.get(f"{role}_token")
    if token is not None:
        return token if isinstance(token, str) else token["content"]
    ids = config.get(f"{role}_token_id")
    index = ids[0] if isinstance(ids, list) else ids
    return None if index is None or index >= len(tokens) else tokens[index]


def _end_token(directory: Path, options: dict[str, Any], config: dict[str, Any], tokens: list[str]) -> str:
    token = _named_token(options, config, tokens, "eos")
    if token not in tokens:
        raise SettingsError(
            f"{directory / 'tokenizer_config.json'}: eos_token is {token!r}, which is no token of tokenizer.json; "
            "set it to the token that ends an answer"
        )
    return token


def _template_begins_with(tokenizer: dict[str, Any], token: str) -> bool:
    """Whether tokenizer.json itself puts the token before every text."""
    processor = tokenizer.get("post_processor") or {}
    steps = [step for part in processor.get("processors", [processor]) for step in part.get("single", [])]
    return bool(steps) and steps[0].get("SpecialToken", {}).get("id") == token


def _chat_template(directory: Path, options: dict[str, Any]) -> str:
    path = directory / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.exists() else options.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if not template:
        raise SettingsError(
            f"{directory} has no chat template; take a model for chat, or write its template to {path.name}"
        )
    return template
