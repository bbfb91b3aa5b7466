"""What is to be typed for servers beside their options: the conversion for llama.cpp, and the merge into the model."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from test_servers import QV, base, lora  # noqa: F401 - base is a fixture
from test_start import ATTENTION, EMBEDDING, HEAD, adapter, model
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def commands(run: Any, folder: Path, *options: object) -> list[dict[str, str]]:
    """Those of the JSON of a scan."""
    found: list[dict[str, str]] = json.loads(run("scan", folder, "--format", "json", *options).stdout)["reports"][0][
        "commands"
    ]
    return found


def test_an_adapter_that_llama_cpp_takes_is_converted(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    """Both lines were run: convert_lora_to_gguf.py of the tree in llama-cpp-python 0.3.36 takes the first as it is."""
    folder = lora(tmp_path / "an adapter", QV)
    convert, serve = commands(run, folder, "--for", "llama.cpp", "--base", base)
    out = f"{folder}.gguf"
    wanted = ["python", "convert_lora_to_gguf.py", "--base", str(base), "--outfile", out, str(folder)]
    assert shlex.split(convert["text"]) == wanted
    assert shlex.split(serve["text"]) == ["llama-server", "-m", "MODEL.gguf", "--lora", out]
    by_config = commands(run, folder, "--for", "llama.cpp", "--base", base / "config.json")
    assert shlex.split(by_config[0]["text"]) == wanted
    assert "convert_lora_to_gguf.py" in run("scan", folder, "--for", "llama.cpp", "--base", base).stdout


def test_what_llama_cpp_does_not_take_is_converted_after_a_fix(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    folder = lora(tmp_path / "a", QV, use_rslora=True)
    assert all(c["purpose"] != "convert" for c in commands(run, folder, "--for", "llama.cpp", "--base", base))
    fix = run("fix", folder, tmp_path / "out", "--for", "llama.cpp", "--base", base, "--format", "json")
    convert, _ = json.loads(fix.stdout)["results"][0]["commands"]
    assert shlex.split(convert["text"])[-2:] == [f"{tmp_path / 'out'}.gguf", str(tmp_path / "out")]


def test_without_a_server_there_is_nothing_to_type(run: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    assert commands(run, lora(tmp_path / "a", QV), "--base", base) == []


@pytest.mark.parametrize(
    ("modules", "values", "of", "reason"),
    [
        ({**ATTENTION, **HEAD}, {}, {"tie_word_embeddings": True}, "both change"),
        ({**ATTENTION, **EMBEDDING}, {}, {"tie_word_embeddings": True}, "both change"),
        ({**ATTENTION, **HEAD}, {}, {"quantization_config": {"bits": 4}}, "quantised"),
        ({**ATTENTION, **HEAD}, {}, {"auto_map": {"AutoModel": "x.Y"}}, "not known"),
        ({**ATTENTION, **HEAD}, {"task_type": "SEQ_CLS"}, {}, "not known"),
        ({**ATTENTION, **HEAD}, {"layer_replication": [[0, 2]]}, {}, "does not merge"),
    ],
)
def test_the_reason_not_to_merge(run: Any, tmp_path: Path, modules: Any, values: Any, of: Any, reason: str) -> None:
    """The head of a Mistral is what vLLM has no LoRA on."""
    folder = adapter(tmp_path / "a", modules, **values)
    place = model(tmp_path / "base", "MistralForCausalLM", "mistral", **of)
    (merge,) = commands(run, folder, "--for", "vllm", "--base", place)
    assert merge["text"] == ""
    assert reason in merge["reason"]


def test_a_class_is_a_name_and_no_program(run: Any, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", {**ATTENTION, **HEAD})
    place = model(tmp_path / "base", "os; print(1) #ForCausalLM", "mistral")
    assert all("print" not in c["text"] for c in commands(run, folder, "--for", "servers", "--base", place))


@pytest.mark.filterwarnings("ignore")
def test_the_merge_computes_what_the_adapter_does(run: Any, tmp_path: Path) -> None:
    """The head of a Mistral is what vLLM has no LoRA for GPT-2: what the command writes is loaded, and compared."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(tokens))
    from tokenizers import Tokenizer, models

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())).save_pretrained(tmp_path / "base")
    asked = peft.LoraConfig(
        r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(GPT2LMHeadModel.from_pretrained(tmp_path / "base"), asked).eval()
    adapted.save_pretrained(tmp_path / "an adapter's")
    (merge,) = commands(run, tmp_path / "an adapter's", "--for", "vllm", "--base", tmp_path / "base")
    python, *words = shlex.split(merge["text"])
    assert python == "python"
    subprocess.run([sys.executable, *words], check=True, timeout=300)
    merged = GPT2LMHeadModel.from_pretrained(tmp_path / "an adapter's-merged").eval()
    tokens_in = torch.arange(8)[None]
    wanted = adapted(tokens_in).logits
    assert float((merged(tokens_in).logits - wanted).abs().max()) < 1e-5
    with adapted.disable_adapter():
        assert float((adapted(tokens_in).logits - wanted).abs().max()) > 1e-3
