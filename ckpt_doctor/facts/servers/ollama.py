"""Ollama at 01cf7445, `convert/`: its source was read, not run."""

from __future__ import annotations

from ...adapter.runtimes import READ
from .record import ANY, MISLOADS, REJECTS, TAKES, UNKNOWN, Scale, Server

OLLAMA = Server(
    READ["ollama"],
    files={"*.safetensors": TAKES, ANY: REJECTS},  # "unknown tensor format"
    shards=TAKES,
    newer_keys=TAKES,
    missing={"lora_alpha": MISLOADS, ANY: TAKES},  # read as 0
    r={ANY: TAKES},
    lora_alpha={"int": TAKES, "null": MISLOADS, ANY: REJECTS},
    bias=TAKES,
    saved_modules={ANY: TAKES},
    odd_rank_pattern=TAKES,
    target_forms={ANY: TAKES},
    target_names={ANY: TAKES},
    methods={ANY: TAKES},
    options={
        "alora_invocation_tokens": MISLOADS,
        "init_lora_weights=pissa": MISLOADS,
        "init_lora_weights=olora": MISLOADS,
        "init_lora_weights=corda": MISLOADS,
        "init_lora_weights=loftq": MISLOADS,
        "init_lora_weights=lora_ga": MISLOADS,
    },
    scale=Scale("tensor", of_zero=1.0),
    ranks={ANY: TAKES},
    uneven_ranks=TAKES,
    # lora_A of q_proj and k_proj is reordered by heads, as for adapters of MLX; what that computes was not run
    modules=dict.fromkeys(("v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), TAKES),
    keys={"plain": TAKES, "no prefix": TAKES},
    dtypes={"F32": TAKES, "F16": TAKES, "BF16": TAKES, ANY: REJECTS},
    # by the name in the GGUF, which is llama for some other models as well
    models={"llama": TAKES, "gemma2": TAKES, "mistral": UNKNOWN, "mixtral": UNKNOWN, ANY: REJECTS},
    says={
        "models": "unsupported architecture",
        "dtypes": "unknown data type: D",
    },
    sources={
        "files": "convert/reader.go: parseTensors",
        "shards": "convert/reader_safetensors.go: parseSafetensors",
        "newer_keys": "convert/convert.go: AdapterParameters",
        "missing": "convert/convert.go: AdapterParameters.KV",
        "r": "convert/convert.go: AdapterParameters does not have it",
        "lora_alpha": "convert/convert.go: AdapterParameters, a uint32",
        "bias": "convert/convert.go: AdapterParameters does not have it",
        "saved_modules": "convert/convert.go: AdapterParameters does not have it",
        "odd_rank_pattern": "convert/convert.go: AdapterParameters does not have it",
        "target_forms": "convert/convert.go: AdapterParameters does not have it",
        "target_names": "convert/convert.go: AdapterParameters does not have it",
        "methods": "convert/convert.go: AdapterParameters does not have it",
        "options": "convert/convert.go: AdapterParameters does not have them",
        "scale": "convert/convert.go: AdapterParameters.KV, and llama.cpp's own formula",
        "ranks": "convert/convert_llama_adapter.go: llamaAdapter.Tensors",
        "uneven_ranks": "convert/convert_llama_adapter.go: llamaAdapter.Tensors",
        "modules": "convert/convert_llama_adapter.go: llamaAdapter.Replacements, llamaAdapter.repack",
        "keys": "convert/convert_llama_adapter.go: llamaAdapter.Replacements",
        "dtypes": "convert/reader_safetensors.go: safetensor.WriteTo",
        "models": "convert/convert.go: ConvertAdapter",
    },
)  # fmt: skip
