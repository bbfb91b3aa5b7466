"""`prove`: the real PEFT on a skeleton says what it makes of an adapter, and is not taken in."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import casefile
import numpy as np
import prove_cases
import pytest
from conftest import ADAPTERS, FIXTURES
from safetensors.numpy import load_file, save_file

from ckpt_doctor.adapter import codes, question_of
from ckpt_doctor.adapter.findings import verdict
from ckpt_doctor.adapter.runtimes import NEWEST, RAN
from ckpt_doctor.files.base import named_base
from ckpt_doctor.verbs import environments, jobs, skeletons
from ckpt_doctor.verbs import prove as verb
from ckpt_doctor.verbs.prove import Proof, proofs, prove
from ckpt_doctor.verbs.scan import examine

PLAIN, ZERO = FIXTURES / "lora-plain-0.21.2", FIXTURES / "adalora-rank0-0.21.2"
SKIPPED = {"lora-head-bert-0.9.0", "lora-nested-0.9.0", "lora-patterns-0.9.0"}
"""0.21.2 misloads them, as the facts say: see `test_what_is_misloaded_is_seen`."""


def test_fixtures_are_what_the_facts_say() -> None:
    reports = [examine(str(FIXTURES / name)) for name in ADAPTERS]
    found = dict(zip(ADAPTERS, proofs(reports, NEWEST, sys.executable), strict=True))
    assert {name for name, proof in found.items() if not proof.agrees} == set()
    unknown = {name: proof.why for name, proof in found.items() if proof.verdict == "unknown"}
    assert len(unknown) <= 2, unknown
    assert {found[name].verdict for name in ADAPTERS if name not in SKIPPED} - {"unknown"} == {"accepts"}
    assert "misloads" in {found[name].verdict for name in SKIPPED}


def changed(folder: Path, tensors: Any = None, **values: Any) -> Path:
    """A copy of the plain LoRA with another config, or other tensors."""
    shutil.copytree(PLAIN, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    if tensors is not None:
        held = load_file(folder / "adapter_model.safetensors")
        save_file(tensors(held), folder / "adapter_model.safetensors")
    return folder


def test_what_is_rejected_has_the_runtimes_own_words(tmp_path: Path) -> None:
    proof = prove(examine(str(changed(tmp_path / "a", r=3))), NEWEST, sys.executable)
    assert (proof.verdict, proof.agrees) == ("rejects", True)
    assert "size mismatch" in proof.why


def test_what_is_misloaded_is_seen(tmp_path: Path) -> None:
    """Names that PEFT ignores, and a layer that the config does not target."""

    def renaming(old: str, new: str) -> Any:
        return lambda held: {key.replace(old, new, 1): x for key, x in held.items()}

    wrapped = changed(tmp_path / "a", renaming("base_model.model.", ""))
    renamed = changed(tmp_path / "b", renaming("base_model.model.", "base_model.model._orig_mod."))
    for folder in (wrapped, renamed):
        proof = prove(examine(str(folder)), NEWEST, sys.executable)
        assert proof.agrees, proof
    assert proof.verdict == "misloads"
    assert proof.layers


MISBEHAVING = {
    "wrong scaling": """
from peft.tuners.lora import layer
old = layer.LoraLayer.update_layer
def update_layer(self, *arguments, **options):
    old(self, *arguments, **options)
    self.scaling = {name: 1.01 * scale for name, scale in self.scaling.items()}
layer.LoraLayer.update_layer = update_layer
""",
    "a layer skipped": """
from peft import peft_model
old = peft_model.set_peft_model_state_dict
def without(model, state, *arguments, **options):
    gone = sorted(state)[0].partition(".lora_")[0]
    return old(model, {k: x for k, x in state.items() if not k.startswith(gone)}, *arguments, **options)
peft_model.set_peft_model_state_dict = without
""",
}


@pytest.mark.parametrize("how", MISBEHAVING)
def test_a_peft_that_misbehaves_is_caught(how: str, tmp_path: Path) -> None:
    patch = tmp_path / "patch.py"
    patch.write_text(f"import runpy, sys\n{MISBEHAVING[how]}\nrunpy.run_path(sys.argv[-1], run_name='__main__')\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {patch} "$@"\n')
    python.chmod(0o755)
    proof = prove(examine(str(PLAIN)), NEWEST, str(python))
    assert (proof.verdict, proof.predicted, proof.agrees) == ("misloads", "accepts", False)
    assert proof.layers


def test_a_fact_of_ours_that_is_wrong_is_said(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "verdict", lambda *_: "rejects")
    monkeypatch.setattr(environments, "installed", lambda: NEWEST.partition("==")[2])
    result = run("prove", PLAIN, "--with", NEWEST)
    assert "ckpt-doctor says rejects, which is wrong" in result.output
    (entry,) = json.loads(run("prove", PLAIN, "--with", NEWEST, "--format", "json").stdout)["results"]
    assert (entry["verdict"], entry["predicted"], entry["agrees"]) == ("accepts", "rejects", False)
    assert entry["report"]["config"]["peft_type"] == "LORA"
    assert len(entry["report"]["tensors"]) == len(load_file(PLAIN / "adapter_model.safetensors"))


def test_exit_codes(run: Any, tmp_path: Path) -> None:
    assert run("prove", PLAIN, "--with", NEWEST).exit_code == 0
    assert run("prove", PLAIN, changed(tmp_path / "a", r=3), "--with", NEWEST).exit_code == 1
    assert run("prove", PLAIN, tmp_path / "none", "--with", NEWEST).exit_code == 2
    assert run("prove", PLAIN, "--with", "vllm").exit_code == 2
    assert run("prove", PLAIN, "--with", "peft>=0.6,<0.9").exit_code == 2


class Fires:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("fired",)


def hostile(folder: Path, tensors: dict[str, tuple[int, ...]], **values: Any) -> Path:
    """An adapter of a header alone, whose tensors have no bytes."""
    header = {key: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for key, shape in tensors.items()}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q"], **values}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


P = "base_model.model."


def pair(module: str, inner: int = 4, out: int = 4) -> dict[str, tuple[int, ...]]:
    return {f"{P}{module}.lora_A.weight": (0, inner), f"{P}{module}.lora_B.weight": (out, 0)}


HOSTILE: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "a huge layer": (pair("q", 1 << 40, 1 << 40), {}),
    "a name that torch takes for its own": (pair("__class__.q"), {}),
    "a name of its methods": (pair("forward.q"), {}),
    "many layers": ({key: shape for n in range(25_000) for key, shape in pair(f"{n}.q").items()}, {}),
    "a module to import": (pair("q"), {"megatron_config": {"a": 1}, "megatron_core": "os"}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_adapters_end_with_a_sentence(what: str, tmp_path: Path) -> None:
    tensors, values = HOSTILE[what]
    proof = prove(examine(str(hostile(tmp_path / "a", tensors, **values))), NEWEST, sys.executable)
    assert proof.verdict in ("unknown", "rejects")
    assert proof.why
    assert len(proof.why) < 600
    assert proof.seconds < 60


def test_code_in_a_bin_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FIXTURES / "lora-bin-sliced-0.12.0", tmp_path / "a")
    (tmp_path / "a/adapter_model.bin").write_bytes(pickle.dumps(Fires()))
    monkeypatch.chdir(tmp_path)
    proof = prove(examine("a"), NEWEST, sys.executable)
    assert proof.verdict == "unknown"
    assert not (tmp_path / "fired").exists()


def test_a_python_that_cannot_be_run(tmp_path: Path) -> None:
    proof = prove(examine(str(PLAIN)), NEWEST, str(tmp_path / "none"))
    assert (proof.verdict, "cannot be run" in proof.why) == ("unknown", True)
    other = prove(examine(str(PLAIN)), "peft==0.9.0", sys.executable)
    assert (other.verdict, "and not 0.9.0" in other.why) == ("unknown", True)


def test_what_only_the_base_tells_is_unknown(tmp_path: Path) -> None:
    """A layer that is targeted and has no tensors, in an AdaLoRA that a load would leave at random numbers."""
    shutil.copytree(ZERO, tmp_path / "a")
    held = load_file(tmp_path / "a/adapter_model.safetensors")
    gone = "base_model.model.blocks.1.q"
    save_file({k: x for k, x in held.items() if not k.startswith(gone)}, tmp_path / "a/adapter_model.safetensors")
    report = examine(str(tmp_path / "a"))
    proof = prove(report, NEWEST, sys.executable)
    assert proof.verdict in ("unknown", "rejects", verdict(NEWEST, report.findings))
    assert proof.verdict != "accepts" or verdict(NEWEST, report.findings) == "accepts"


def test_the_companions_are_those_that_were_run() -> None:
    script = (Path(__file__).parent.parent / "scripts/make_peft_venvs.sh").read_text()
    for release in ("0.9.0", "0.13.2", "0.21.2"):
        assert " ".join(environments.companions(release)) in script


def test_proofs_are_in_the_order_of_their_reports(tmp_path: Path) -> None:
    folders = [PLAIN, changed(tmp_path / "a", r=3), ZERO]
    found = proofs([examine(str(folder)) for folder in folders], NEWEST, sys.executable)
    assert [proof.verdict for proof in found] == ["accepts", "rejects", "accepts"]
    assert all(isinstance(proof, Proof) and np.isfinite(proof.seconds) for proof in found)


def test_scan_and_fix_and_preload_prove(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a real release does wins over what is predicted of it."""
    import ckpt_doctor

    said = run("scan", PLAIN, "--for", NEWEST, "--prove").output
    assert "PEFT 0.21.2: accepts (proved)" in said
    result = run("fix", ZERO, tmp_path / "fixed", "--for", NEWEST, "--to", "lora", "--prove")
    assert result.exit_code == 0, result.output
    assert "loaded on a skeleton in PEFT 0.21.2: accepts" in result.output
    proof = json.loads((tmp_path / "fixed/ckpt-doctor.json").read_text())["proof"]
    assert proof["runtimes"] == {NEWEST: "accepts"}
    assert ckpt_doctor.preload(PLAIN, NEWEST, prove=True) == PLAIN
    rejecting = Proof(NEWEST, "rejects", "ValueError: no", (), "accepts")
    monkeypatch.setattr(verb, "prove", lambda *_: rejecting)
    result = run("scan", PLAIN, "--for", NEWEST, "--prove")
    assert result.exit_code == 1
    assert "CD903 proved" in result.output
    assert "which is wrong" in result.stderr
    result = run("fix", ZERO, tmp_path / "other", "--for", NEWEST, "--to", "lora", "--prove")
    assert result.exit_code == 1
    assert not (tmp_path / "other").exists()
    with pytest.raises(ckpt_doctor.AdapterRejected, match="ValueError: no"):
        ckpt_doctor.preload(PLAIN, NEWEST, prove=True)


def test_code_beside_good_weights_is_not_run_by_releases_that_prefer_it(tmp_path: Path) -> None:
    """0.2 and 0.3 read the .bin: it is no part of what they are given, or there is no answer."""
    shutil.copytree(PLAIN, tmp_path / "a")
    (tmp_path / "a/adapter_model.bin").write_bytes(pickle.dumps(Fires()))
    adapter = examine(str(tmp_path / "a")).adapter
    assert adapter is not None
    with pytest.raises(skeletons.Unknown, match="may hold code"):
        skeletons.stage(adapter, str(tmp_path / "old"), "peft==0.3.0")
    skeletons.stage(adapter, str(tmp_path / "new"), NEWEST)
    assert sorted(os.listdir(tmp_path / "new")) == ["adapter_config.json", "adapter_model.safetensors"]


def test_what_is_loaded_is_what_was_looked_at(tmp_path: Path) -> None:
    """A .bin that becomes another after it was scanned, and a config that then imports a module."""
    shutil.copytree(FIXTURES / "lora-bin-sliced-0.12.0", tmp_path / "a")
    adapter = examine(str(tmp_path / "a")).adapter
    assert adapter is not None
    (tmp_path / "a/adapter_model.bin").write_bytes(pickle.dumps(Fires()))
    (tmp_path / "a/adapter_config.json").write_text('{"megatron_core": "os"}')
    with pytest.raises(skeletons.Unknown):
        skeletons.stage(adapter, str(tmp_path / "b"), NEWEST)
    assert json.loads((tmp_path / "b/adapter_config.json").read_text()) == adapter.config


def test_of_a_release_that_nobody_reviewed_nothing_is_predicted(tmp_path: Path) -> None:
    patch = tmp_path / "patch.py"
    renamed = "import runpy, sys, peft\npeft.__version__ = '0.30.0'\n"
    patch.write_text(renamed + "runpy.run_path(sys.argv[-1], run_name='__main__')\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {patch} "$@"\n')
    python.chmod(0o755)
    proof = prove(examine(str(PLAIN)), "peft==0.30.0", str(python))
    assert (proof.verdict, proof.predicted, proof.agrees) == ("accepts", "unknown", True)


def test_a_skeleton_does_not_overrule_what_hangs_on_the_model() -> None:
    """A layer that the base model has not: on a skeleton there is one."""
    report = examine(str(PLAIN))
    assert prove(report, NEWEST, sys.executable).verdict == "accepts"
    doubt = codes.NOT_IN_BASE("the base model has no blocks.0.q", misloads=frozenset((NEWEST,)))
    proof = prove(report._replace(findings=(*report.findings, doubt)), NEWEST, sys.executable)
    assert (proof.verdict, "has no blocks.0.q" in proof.why) == ("unknown", True)


def test_what_cannot_be_proved_is_an_error_and_no_answer(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (("scan", PLAIN), ("fix", ZERO, tmp_path / "out")):
        result = run(*command, "--for", "vllm", "--prove")
        assert (result.exit_code, "--for names no release of it" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(environments, "python_of", lambda *_: str(bare))
    result = run("prove", PLAIN, "--with", NEWEST)
    assert (result.exit_code, "No module named" in result.stderr) == (2, True)


CASES = (
    "CD102-pattern-zero", "CD104-not-in-the-base", "CD304-bias-none", "CD304-both-names-near", "CD304-old-names",
    "CD309-others-are-targeted", "CD403-lora-with-an-e-near", "CD404-named-as-in-memory", "CD404-no-lora-bias",
    "CD406-int8", "CD408-as-in-memory", "CD408-copies-bias-near", "CD408-named-like-a-factor", "CD514-default",
    "CD514-in-the-path-near", "CD524-boft-by-0.12", "CD614-bias-and-no-base", "CD614-of-a-layer",
    "CD901-vblora-topk-near",
)  # fmt: skip
"""Cases of which a skeleton once said what no model does."""


def test_cases_are_proved_with_random_weights(tmp_path: Path) -> None:
    (tmp_path / "bytes").mkdir()
    reports = [prove_cases.written(casefile.FOLDER / f"{name}.toml", tmp_path) for name in CASES]
    found = proofs([report for report in reports if report is not None], NEWEST, sys.executable)
    assert len(found) == len(CASES)
    assert [(name, proof) for name, proof in zip(CASES, found, strict=True) if not proof.agrees] == []
    assert [proof.verdict for proof in found].count("unknown") < len(found) - 3


def standing_in(folder: Path, *lines: str) -> str:
    """A Python that does something before it runs what it is given."""
    python = folder / "python"
    python.write_text("\n".join(("#!/bin/sh", *lines, f'exec {sys.executable} "$@"', "")))
    python.chmod(0o755)
    return str(python)


def patched(folder: Path, code: str) -> str:
    """A Python in which some code runs before the runner does."""
    (folder / "patch.py").write_text(f"import runpy, sys\n{code}\nrunpy.run_path(sys.argv[-1], run_name='__main__')\n")
    return standing_in(folder, f'set -- {folder / "patch.py"} "$@"')


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_load_that_hangs_ends_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SECONDS", 2)
    python = standing_in(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid; sleep 300")
    proof = prove(examine(str(PLAIN)), NEWEST, python)
    assert (proof.verdict, proof.why) == ("unknown", "the load took more than 2 s")
    assert proof.seconds < 10
    assert not is_there(int((tmp_path / "pid").read_text()))


def test_what_a_load_leaves_behind_holds_nobody_up(tmp_path: Path) -> None:
    """It has the load's output open, and is gone when the answer is there."""
    python = standing_in(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid")
    proof = prove(examine(str(PLAIN)), NEWEST, python)
    assert proof.verdict == "accepts"
    assert proof.seconds < 120
    assert not is_there(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("where", [1, 2])
def test_output_without_end(where: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_PRINTED", 1 << 20)
    proof = prove(examine(str(PLAIN)), NEWEST, standing_in(tmp_path, f"yes >&{where}"))
    assert (proof.verdict, proof.why) == ("unknown", "the load printed more than 1 MB")
    assert proof.seconds < 60


def test_what_a_runtime_prints_is_no_answer(tmp_path: Path) -> None:
    """Python or C, before the answer."""
    code = "import os, peft\nclass Loud(peft.PeftModel):\n    @classmethod\n    def from_pretrained(cls, *a, **k):\n"
    code += "        print('{}'); os.write(1, b'{\"over\": \"no\"}\\n')\n        return old(*a, **k)\n"
    code += "old = peft.PeftModel.from_pretrained\npeft.PeftModel = Loud"
    assert prove(examine(str(PLAIN)), NEWEST, patched(tmp_path, code)).verdict == "accepts"


def test_a_load_sees_little_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "HF_TOKEN", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, str(tmp_path / "none.so"))
    (tmp_path / "peft.py").write_text("raise SystemExit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    python = standing_in(tmp_path, f"env > {tmp_path}/seen")
    assert prove(examine(str(PLAIN)), NEWEST, python).verdict == "accepts"
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    assert not [name for name in seen if name.startswith(("LD_PRELOAD", "PYTHON", "HF_", "TORCH_"))]
    assert seen["HOME"] != str(tmp_path)
    assert seen["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("how", ["bytearray(1 << 40)", "import torch; torch.zeros(1 << 40)"])
def test_a_load_that_wants_too_much_memory_is_not_rejected(how: str, tmp_path: Path) -> None:
    code = f"import peft\ndef greedy(*a, **k):\n    {how}\npeft.PeftModel.from_pretrained = greedy"
    proof = prove(examine(str(PLAIN)), NEWEST, patched(tmp_path, code))
    assert (proof.verdict, proof.why) == ("unknown", "the load took more memory than it may")


def test_a_load_has_no_network(tmp_path: Path) -> None:
    asks = "import socket; socket.create_connection(('127.0.0.1', 9))"
    code = f"import peft\ndef asking(*a, **k):\n    {asks}\npeft.PeftModel.from_pretrained = asking"
    proof = prove(examine(str(PLAIN)), NEWEST, patched(tmp_path, code))
    assert (proof.verdict, "the load asks the network" in proof.why) == ("unknown", True)


def test_files_that_change_under_a_load(tmp_path: Path) -> None:
    """Between the scan and the load, and while it runs: other numbers are no fault of the release."""
    folder = changed(tmp_path / "a")
    report = examine(str(folder))
    weights = folder / "adapter_model.safetensors"
    save_file({key: 2 * x for key, x in load_file(weights).items()}, weights)
    assert "changed" in prove(report, NEWEST, sys.executable).why
    report = examine(str(folder))
    data = weights.read_bytes()
    (tmp_path / "new").write_bytes(data[:-4] + b"\0\0\0\0")
    (tmp_path / "b").mkdir()
    code = f"import atexit, os; atexit.register(os.replace, {str(tmp_path / 'new')!r}, {str(weights)!r})"
    proof = prove(report, NEWEST, patched(tmp_path / "b", code))
    assert (proof.verdict, "changed" in proof.why) == ("unknown", True)


def test_transformers_loads_it_where_the_models_config_is_there(tmp_path: Path) -> None:
    """By the class that the config names, whose weights it may rename. The transformers here is another release."""
    wanted, adapter = RAN["transformers"], str(tmp_path / "a")
    make_llama_lora(Path(adapter))
    (tmp_path / "base").mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "base/config.json").write_text(json.dumps(config))
    layers = [f"model.layers.{at}.self_attn.{name}_proj.weight" for at in range(2) for name in "qkvo"]
    weights = dict.fromkeys((*layers, "model.embed_tokens.weight", "lm_head.weight"), np.zeros((16, 16), "float32"))
    save_file(weights, tmp_path / "base/model.safetensors")
    of_base = question_of(frozenset((wanted,)), "default", named_base(str(tmp_path / "base")), None)
    alone = question_of(frozenset((wanted,)), "default", named_base("none"), None)
    version = f"import peft, transformers; transformers.__version__ = {wanted.partition('==')[2]!r}"
    python = patched(tmp_path, version)
    assert "no config of a base model" in prove(examine(adapter, alone), wanted, python).why
    assert "did not ask" in prove(examine(adapter), wanted, python).why
    assert "has transformers" in prove(examine(adapter, of_base), wanted, sys.executable).why
    report = examine(adapter, of_base)
    proof = prove(report, wanted, python)
    assert (proof.verdict, proof.predicted) == ("accepts", "accepts"), proof
    (tmp_path / "b").mkdir()
    wrong = patched(tmp_path / "b", f"{version}\n{MISBEHAVING['wrong scaling']}")
    assert prove(report, wanted, wrong).verdict == "misloads"


def make_llama_lora(folder: Path) -> None:
    random = np.random.default_rng(0)
    factors = {
        f"{P}model.layers.{at}.self_attn.{name}.lora_{side}.weight": random.standard_normal(shape).astype("float32")
        for at in range(2) for name in ("q_proj", "v_proj") for side, shape in (("A", (4, 16)), ("B", (16, 4)))
    }  # fmt: skip
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "llama",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
