"""What a Hugging Face `config.json` says about a Llama network, and a refusal of everything that we do not compute.

Source: https://huggingface.co/docs/transformers/model_doc/llama, class LlamaConfig.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from somagent_slm.gguf_file import LlamaShape
from somagent_slm.settings import SettingsError

ARCHITECTURE = "LlamaForCausalLM"
# What the network must not have, because llama.cpp would compute something else without a word.
_ONLY_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "pretraining_tp": (1,),
    "quantization_config": (None,),
}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises SettingsError naming the file."""
    if not path.is_file():
        raise SettingsError(f"{path} does not exist; SLM_MODEL_PATH must be a complete Hugging Face directory")
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path} holds {type(value).__name__}, not an object; download it again")
    return value


def unsupported(path: Path, field: str, value: Any, needed: str) -> SettingsError:
    """The error for a value that would make llama.cpp compute something else than the model's authors meant."""
    return SettingsError(
        f"{path}: {field} is {json.dumps(value)[:200]}, supported is {needed}; "
        "take a model that has it, or convert this one to GGUF with llama.cpp's convert_hf_to_gguf.py"
    )


def read_shape(path: Path, config: dict[str, Any]) -> LlamaShape:
    """The sizes in `config`, the content of `path`. Raises SettingsError naming the first field that can't be served."""
    architectures = config.get("architectures")
    if architectures != [ARCHITECTURE]:
        raise unsupported(path, "architectures", architectures, f'["{ARCHITECTURE}"]')
    for field, allowed in _ONLY_VALUES.items():
        if config.get(field, allowed[0]) not in allowed:
            raise unsupported(path, field, config[field], json.dumps(allowed[0]))
    heads = _size(path, config, "num_attention_heads")
    shape = LlamaShape(
        vocabulary=_size(path, config, "vocab_size"),
        width=_size(path, config, "hidden_size"),
        layers=_size(path, config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_size(path, {"num_key_value_heads": heads, **config}, "num_key_value_heads"),
        hidden=_size(path, config, "intermediate_size"),
        context=_size(path, config, "max_position_embeddings"),
        rope_base=_rope_base(path, config),
        norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
    )
    _check_heads(path, config, shape)
    return shape


def _size(path: Path, config: dict[str, Any], field: str) -> int:
    value = config.get(field)
    if type(value) is not int or value < 1:
        raise unsupported(path, field, value, "a whole number above 0")
    return value


def _rope_base(path: Path, config: dict[str, Any]) -> float:
    # Version 5 of transformers puts both values into `rope_parameters`.
    for field in ("rope_scaling", "rope_parameters"):
        rope = config.get(field) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise unsupported(path, f"{field}.rope_type", kind, '"default"')
    base = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10_000.0))
    return float(base)


def _check_heads(path: Path, config: dict[str, Any], shape: LlamaShape) -> None:
    if shape.width % shape.heads or shape.head_width % 2:
        raise unsupported(path, "num_attention_heads", shape.heads, f"a divisor of {shape.width} that leaves an even width")
    if shape.heads % shape.kv_heads:
        raise unsupported(path, "num_key_value_heads", shape.kv_heads, f"a divisor of num_attention_heads={shape.heads}")
    if (config.get("head_dim") or shape.head_width) != shape.head_width:
        raise unsupported(path, "head_dim", config["head_dim"], f"{shape.head_width} (hidden_size / num_attention_heads)")
