"""`ckpt-doctor explain` of what a runtime printed: which codes it names, and that no text holds it up."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ckpt_doctor.adapter.codes import CODES
from ckpt_doctor.cli import main
from ckpt_doctor.facts.messages import PLACES, messages, quoted
from ckpt_doctor.reports import pages
from ckpt_doctor.verbs.recognise import LONGEST, MOST, likely, recognised

ROOT = Path(__file__).parent.parent

PRINTED = [
    ("ValueError: `r` should be a positive integer value but the value passed is 0", "CD101"),
    ("ValueError: `r` should be a positive integer value but the value passed is -1", "CD102"),
    ("KeyError: 'ADALORA'", "CD301"),
    ("KeyError: 'VERA'", "CD502"),
    ("KeyError: 'peft_type'", "CD501"),
    ("KeyError: 'base_model.model.score.weight'", "CD323"),
    ("KeyError: 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.lm_head.weight'", "CD106"),
    ("TypeError: LoraConfig.__init__() got an unexpected keyword argument 'layer_replication'", "CD201"),
    ("TypeError: peft.tuners.adalora.AdaLoraLayer.update_layer.<locals>.lora_dropout_layer is not a Module subclass",
     "CD301"),
    ("AttributeError: ModuleList has no attribute `7`", "CD104"),
    ("ValueError: Unexcepted type of rank_idx", "CD104"),
    ("TypeError: Unexpected type of rank_idx", "CD104"),
    ("ValueError: Unknown initialization init_lora_weights='pissa_niter_4'", "CD303"),
    ("ValueError: Unknown initialization init_lora_weights='orthogonal'", "CD305"),
    ("RuntimeError: Error(s) in loading state_dict for PeftModel: size mismatch for "
     "base_model.model.blocks.0.attn.q_proj.lora_A.default.weight: copying a param with shape torch.Size([0, 16]) "
     "from checkpoin", "CD102"),
    ("RuntimeError: Error(s) in loading state_dict for PeftModel: size mismatch for "
     "base_model.model.blocks.0.attn.q_proj.lora_E.default: copying a param with shape torch.Size([1]) from "
     "checkpoint, the shap", "CD103"),
    ("RuntimeError: Error(s) in loading state_dict for PeftModelForCausalLM: size mismatch for "
     "base_model.model.model.layers.0.self_attn.q_proj.boft_R.default: copying a param with shape torch.Size([1, 4, 4",
     "CD505"),
    ("NoMatchingPeftModuleError: Target modules {'nosuch'} not found in the base model. Please check the target "
     "modules and try again.", "CD309"),
    ("ValueError: Target modules all-linear not found in the base model. Please check the target modules and "
     "try again.",
     "CD308"),
    ("ValueError: Can't find weights for my/lora in my/lora or in the Hugging Face Hub. Please check that the file "
     "adapter_model.bin is present at my/lora", "CD021"),
    ("SafetensorError: Error while deserializing header: MetadataIncompleteBuffer", "CD005"),
    ("UnpicklingError: Weights only load failed. This file can still be loaded, to do so you have two options, "
     "\x1b[1mdo those steps only if you trust the source of the checkpoint\x1b[0m. (1) In PyTorch 2.6, we c", "CD010"),
    ("TypeError: '>' not supported between instances of 'NoneType' and 'float'", "CD306"),
    ("ValueError: vLLM does not yet support DoRA.", "CD606"),
    ("ValueError: LoRA rank 17 is greater than max_lora_rank 16.", "CD615"),
    ("ValueError: base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight is unsupported LoRA weight",
     "CD612"),
    ("ValueError: base_model.model.lm_head.weight is unsupported LoRA weight", "CD614"),
    ("ValueError: LoRA adapter 1 contains fused 3D MoE weights for 'model.layers.1.mlp.experts', but the "
     "model uses a 2D",
     "CD620"),
    ("LoRA is not supported for GPT2Model (gpt2). Supported models implement the `SupportsLoRA` interface.", "CD616"),
    ("LoRAUpdateOutput(success=False): 'base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight'", "CD610"),
    ("LoRAUpdateOutput(success=False): Only 'all' or 'all-linear' can be used as the string for target module",
     "CD609"),
    ("SystemExit: 1 | Unexpected name 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias': Not a lora_A or "
     "lora_B tensor", "CD606"),
    ("ValueError: Can not map tensor 'model.layers.9.self_attn.q_proj.weight'", "CD617"),
    ("llama_adapter_lora_init_from_file_ptr: failed to apply lora adapter: tensor 'blk.0.attn_qkv.weight' has "
     "incorrect shape (hint: maybe wrong base model?)", "CD619"),
    ("RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising an error. For details look at the above "
     "report!", "CD105"),
    ("AssertionError", "CD613"),
    ("AttributeError: 'Linear' object has no attribute 'embedding_dim'", "CD314"),
]  # fmt: skip
"""What runtimes printed as they loaded an adapter, some cut by a log, and a code that a scan for them reports of it."""


def codes(text: str) -> list[str]:
    return [code.number for code in likely(recognised(text))]


@pytest.mark.parametrize(("text", "code"), PRINTED, ids=[text[:60] for text, _ in PRINTED])
def test_a_message_names_the_code_that_it_comes_from(run: Any, text: str, code: str) -> None:
    named = codes(text)
    assert code in named
    assert len(named) <= MOST
    result = run("explain", text)
    assert result.exit_code == 0
    assert all(f"{number} {CODES[number].name}" in result.stdout for number in named)
    assert "ckpt-doctor scan DIR --for " in result.stdout


@pytest.mark.parametrize(("text", "code"), PRINTED, ids=[text[:60] for text, _ in PRINTED])
def test_it_is_the_same_however_it_was_copied(text: str, code: str) -> None:
    assert code in codes(text.replace("'", "\\'").replace("`", "\\`").replace('"', '\\"'))
    assert code in codes(text.replace("'", "’").replace(" ", "\u00a0"))
    assert code in codes(f"\x1b[31m{text}\x1b[0m\n")
    assert code in codes(f'{{"error": "{text}\\n"}}'.replace('\\n"}', "\\n"))
    in_log = f'Traceback (most recent call last):\n  File "serve.py", line 3, in <module>\n    load(path)\n{text}\n'
    assert code in codes(in_log + "2026-01-01 00:00:00 the process ended\n")
    if not any(match.message.alone for match in recognised(text)):
        assert code in codes("\n".join(text[at : at + 40] for at in range(0, len(text), 40)))
        assert code in codes("\n".join(f"│ {text[at : at + 40]:40} │" for at in range(0, len(text), 40)))


def _edited(folder: Path, **keys: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def _cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "rank 0": ("lora-plain-0.21.2", lambda folder: _edited(folder, r=0)),
    "another rank": ("lora-plain-0.21.2", lambda folder: _edited(folder, r=3)),
    "an init": ("lora-plain-0.21.2", lambda folder: _edited(folder, init_lora_weights="nosuch")),
    "a target": ("lora-plain-0.21.2", lambda folder: _edited(folder, target_modules=["nosuch"])),
    "no target": ("lora-plain-0.21.2", lambda folder: _edited(folder, target_modules=None)),
    "a method": ("lora-plain-0.21.2", lambda folder: _edited(folder, peft_type="NOSUCH")),
    "a task": ("lora-plain-0.21.2", lambda folder: _edited(folder, task_type="NOSUCH")),
    "a null": ("lora-plain-0.21.2", lambda folder: _edited(folder, lora_alpha=None)),
    "a schedule": ("adalora-no-rank0-0.21.2", lambda folder: _edited(folder, total_step=None)),
    "bytes": ("lora-plain-0.21.2", _cut),
    "no bytes": ("lora-plain-0.21.2", lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"")),
    "no weights": ("lora-plain-0.21.2", lambda folder: (folder / "adapter_model.safetensors").unlink()),
    "JSON": ("lora-plain-0.21.2", lambda folder: (folder / "adapter_config.json").write_text("{'r': 4}")),
}


@pytest.mark.parametrize(("fixture", "edit"), BROKEN.values(), ids=BROKEN)
def test_the_traceback_of_a_real_load_names_what_a_scan_finds(
    fixture: str, edit: Callable[[Path], object], tmp_path: Path, run: Any
) -> None:
    import make
    import peft

    adapter = tmp_path / "adapter"
    shutil.copytree(ROOT / "fixtures" / fixture, adapter)
    edit(adapter)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever PEFT raises is what a user pastes
        peft.PeftModel.from_pretrained(make.make_base("net"), str(adapter))
    pasted = "".join(traceback.format_exception(raised.value))
    asked = f"peft=={peft.__version__}"
    report = json.loads(run("scan", adapter, "--for", asked, "--format", "json").stdout)["reports"][0]
    found = {f["code"] for f in report["findings"] if asked in (*f["rejected_by"], *f["misloaded_by"])}
    assert found & set(codes(pasted)), (codes(pasted), found, pasted[-300:])


def test_a_traceback_is_taken_from_the_standard_input() -> None:
    text = f"Traceback (most recent call last):\n  …\n{PRINTED[0][0]}\n"
    for arguments in (["explain", "-"], ["explain"]):
        result = CliRunner().invoke(main, arguments, input=text)
        assert result.exit_code == 0
        assert "CD101 adalora-rank-zero" in result.stdout
    assert CliRunner().invoke(main, ["explain", "-"], input="CD101\n").stdout.startswith("CD101 adalora-rank-zero\n")
    assert CliRunner().invoke(main, ["explain", "-"], input="\n").exit_code == 2


def test_words_that_a_shell_took_out_are_not_missed(run: Any) -> None:
    # in double quotes, what is in backticks is run, and nothing stands for it
    eaten = "ValueError: AdaLoRA does not work when  is None, supply a value > 0."
    assert codes(eaten)[0] == "CD302"
    assert "CD101" in codes(" should be a positive integer value but the value passed is 0")
    assert run("explain", *PRINTED[0][0].split()).exit_code == 0, "nor are the quotes"


def test_several_causes_in_one_message_are_named() -> None:
    text = "ValueError: vLLM does not yet support DoRA. LoRA rank 64 is greater than max_lora_rank 16."
    assert set(codes(text)) == {"CD606", "CD615"}


def test_what_is_not_known_is_said_with_what_to_run(run: Any) -> None:
    for text in ("CUDA out of memory. Tried to allocate 2.00 GiB", "it does not work", "KeyError: 'my key is this'"):
        result = run("explain", text)
        assert result.exit_code == 1
        assert "No message in it is known" in result.stdout
        assert "ckpt-doctor scan DIR --for" in result.stdout
        assert "CD" not in result.stdout
    assert codes("AssertionError is what I feared, and the log went on") == []


def test_the_name_in_a_message_is_told_without_what_commands_a_terminal(run: Any) -> None:
    key = "base_model.model.model.layers.0.\x1b]0;x\x07self_attn.\u202eq_proj.weight"
    output = run("explain", f"ValueError: {key} is unsupported LoRA weight").stdout
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert "\x07" not in output
    assert "It names base_model.model.model.layers.0.self_attn.q_proj.weight." in run(
        "explain", "base_model.model.model.layers.0.self_attn.q_proj.weight is unsupported LoRA weight"
    ).stdout.replace("\n", "")


HOSTILE = {
    "letters": "a" * LONGEST,
    "spaces": " " * LONGEST,
    "lines": "\n" * LONGEST,
    "quotes": "'" * LONGEST,
    "escapes": "\x1b[" * (LONGEST // 2),
    "beginnings": "size mismatch for " * (LONGEST // 18),
    "names": ("size mismatch for base_model.lora_A." + "x" * 400) * (LONGEST // 440),
    "errors": "KeyError: '" * (LONGEST // 11),
    "places": "Target modules " + "{" * 900 + "Target modules " * (LONGEST // 20),
    "every message": "\n".join(message.texts[0] for message in messages()) * 40,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_holds_it_up(text: str) -> None:
    start = time.process_time()
    named = likely(recognised(text))
    assert time.process_time() - start < 5
    assert len(named) <= MOST


def test_what_comes_last_counts_however_much_comes_before() -> None:
    assert codes("a line of a log\n" * 200_000 + PRINTED[0][0])[0] == codes(PRINTED[0][0])[0]


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.quote[:60])
def test_a_message_that_pages_quote_leads_to_its_codes(message: Any) -> None:
    assert 1 <= len(message.codes) <= MOST
    assert len(set(message.codes)) == len(message.codes)
    assert len(message.texts) == len(message.places) + 1
    assert all(isinstance(place, int) or place in PLACES for place in message.places)
    assert message.runtime
    assert message.source
    assert likely(recognised(message.quote))[: len(message.codes)] == list(message.codes)


def test_a_message_stands_once() -> None:
    assert len({message.texts for message in messages()}) == len(messages())


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_a_page_quotes_the_messages_of_its_code(code: Any) -> None:
    page = pages.markdown(code)
    assert all(message.quote in page and code in message.codes for message in quoted(code))
    assert ("Messages:" in page) == bool(quoted(code))


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_what_the_words_of_a_page_quote_is_known_as_a_message_of_its_code(code: Any) -> None:
    quotes = [text for text in re.findall(r'"([^"]+)"', " ".join(code.page.split())) if 4 <= len(text.split()) < 15]
    assert [text for text in quotes if code.number not in codes(text.replace("…", "x"))] == []


def test_explain_of_a_message_reads_nothing_that_it_does_not_use() -> None:
    script = (
        "import sys; sys.argv = ['ckpt-doctor', 'explain', 'KeyError: \\'VERA\\'']; from ckpt_doctor.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nassert not {'torch', 'numpy', 'ckpt_doctor.rules'} & sys.modules.keys()"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
