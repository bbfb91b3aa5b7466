"""What an adapter means is what the release that saved it makes of it: repairs and comparisons keep to that."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, OLD_READING
from safetensors.numpy import load_file, save_file
from test_fix import load
from test_for import edited

from ckpt_doctor.adapter import Question
from ckpt_doctor.adapter.findings import verdict
from ckpt_doctor.adapter.runtimes import ids, peft
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files.loader import load as load_adapter
from ckpt_doctor.verbs.compare import compare
from ckpt_doctor.verbs.plan import plan
from ckpt_doctor.verbs.scan import examine

NESTED, PATTERNS, HEAD = (FIXTURES / name for name in OLD_READING)
KNOWN = ("peft_type", "r", "lora_alpha", "target_modules", "layers_to_transform", "rank_pattern", "alpha_pattern")


def read(path: str) -> Subject:
    """The adapter in a folder."""
    return Subject(load_adapter(path))


def undated(source: Path, to: Path, **values: Any) -> Path:
    """An adapter whose config does not tell which release saved it."""
    edited(source.name, to)
    path = to / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in KNOWN if key in config} | values))
    return to


def test_the_newest_peft_computes_what_0_9_saved(run: Any, tmp_path: Path) -> None:
    """It reads both configs otherwise: other layers of the one, another scale of the other."""
    outs = []
    for source in (NESTED, PATTERNS):
        for number, spec in enumerate(("peft", "peft==0.6.2", "peft==0.13.2", "peft==*")):
            out = tmp_path / str(number) / source.name
            assert run("fix", source, out, "--for", spec, "--for", "peft").exit_code == 0
            assert compare(read(str(source)), read(str(out))).verdict == "same"
            outs.append(out)
    rows = load(sys.executable, [NESTED, PATTERNS, *outs])
    assert [row["verdict"] for row in rows] == ["misloads", "misloads", *["accepts"] * len(outs)]


def test_a_comparison_reads_each_as_its_saver_does(tmp_path: Path) -> None:
    """Which layers the newest adapts, named in full, is not what 0.9 saved; nor is the scale that it takes."""
    newest = r"body\.blocks\.1\.parts\.[01]\.[qv]"
    other = edited(NESTED.name, tmp_path / "a", target_modules=newest, layers_to_transform=None)
    assert compare(read(str(NESTED)), read(str(other))).verdict == "different"
    ranks = {"blocks.0.q": 2, "blocks.1.q": 2}
    for alpha, verdict_ in ((32, "different"), (8, "same")):
        alphas = {"blocks.1.q": alpha, "v": 16}
        scaled = edited(PATTERNS.name, tmp_path / verdict_, rank_pattern=ranks, alpha_pattern=alphas)
        assert compare(read(str(PATTERNS)), read(str(scaled))).verdict == verdict_


@pytest.mark.parametrize("source", [NESTED, PATTERNS], ids=lambda path: path.name)
def test_where_savers_disagree_nothing_is_repaired_by_one_of_them(run: Any, tmp_path: Path, source: Path) -> None:
    unclear = undated(source, tmp_path / "in")
    result = run("fix", unclear, tmp_path / "out", "--for", "peft>=0.6")
    assert result.exit_code == 1
    assert "may have saved it" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
    assert compare(read(str(unclear)), read(str(unclear))).verdict == "same"
    run("fix", source, tmp_path / "fixed", "--for", "peft==*")
    assert compare(read(str(unclear)), read(str(tmp_path / "fixed"))).verdict == "cannot tell"


def test_a_proof_asks_what_the_release_makes_of_the_result() -> None:
    """Nothing was repaired, so both are the same if read alike, and 0.21 reads the original otherwise than 0.9."""
    adapter = read(str(NESTED))
    assert compare(adapter, adapter, by=peft("0.9", "0.19")).verdict == "same"
    regex = r"body\.blocks\.1\.parts\.[01]\.[qv]"
    config = {**adapter.config, "target_modules": regex, "layers_to_transform": None}
    other = adapter.changed(adapter.adapter._replace(config=config))
    assert compare(other, adapter, by=peft("0.21")).verdict == "different"
    # no release below 0.8 finds one of its layers
    assert compare(other, adapter, by=peft("0.5", "0.5")).verdict != "same"


@pytest.mark.parametrize("spec", ["peft==0.6.2", "peft==0.13.2", "peft", "peft==*"])
def test_a_head_among_the_targets_is_refused(run: Any, tmp_path: Path, spec: str) -> None:
    assert run("fix", HEAD, tmp_path / "out", "--for", spec).exit_code == 1
    assert not (tmp_path / "out").exists()


def test_a_plain_fix_does_not_open_a_head_to_releases_that_misload_it(run: Any, tmp_path: Path) -> None:
    run("fix", HEAD, tmp_path / "out")
    folder = tmp_path / "out" if (tmp_path / "out").exists() else HEAD
    assert verdict("peft==0.6.2", examine(str(folder)).findings) == "rejects"


def pattern(folder: Path, change: Any) -> Path:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder


def lost_layer(folder: Path) -> Path:
    """One layer with a rank has no tensors."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    kept = {key: value for key, value in tensors.items() if ".blocks.1.v." not in key}
    assert len(kept) == len(tensors) - 3
    save_file(kept, file)
    return folder


def other_init_r(folder: Path) -> Path:
    return pattern(folder, lambda config: config.update(init_r=8))


@pytest.mark.parametrize("damage", [lost_layer, other_init_r])
def test_a_pattern_that_contradicts_the_file_is_not_rebuilt(run: Any, tmp_path: Path, damage: Any) -> None:
    source = damage(edited("adalora-rank0-0.21.2", tmp_path / "in"))
    result = run("fix", source, tmp_path / "out", "--for", "peft")
    assert result.exit_code == 1
    assert "refused rebuild rank_pattern" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["pad", "prune"])
def test_a_pruned_layer_without_tensors_is_no_target_any_more(run: Any, tmp_path: Path, how: str) -> None:
    """Without an entry in the pattern, 0.5 – 0.11 would leave it at random numbers."""
    source = edited("adalora-rank0-0.9.0", tmp_path / "in")
    tensors = load_file(source / "adapter_model.safetensors")
    save_file({key: value for key, value in tensors.items() if value.size}, source / "adapter_model.safetensors")
    assert run("fix", source, tmp_path / "out", "--for", "peft==0.9.0", "--rank-zero", how).exit_code == 0
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert "blocks.1.up.lora_E" not in config["rank_pattern"]
    assert not re.fullmatch(config["target_modules"], "blocks.1.up")
    assert re.fullmatch(config["target_modules"], "blocks.0.up")


def test_a_pattern_without_an_entry_is_rebuilt(run: Any, tmp_path: Path) -> None:
    source = edited("adalora-rank0-0.21.2", tmp_path / "in")
    pattern(source, lambda config: config["rank_pattern"].popitem())
    assert run("fix", source, tmp_path / "out", "--for", "peft").exit_code == 0
    shutil.copy(FIXTURES / "adalora-rank0-0.21.2/expected_output.npy", tmp_path / "out")
    assert [row["verdict"] for row in load(sys.executable, [tmp_path / "out"])] == ["accepts"]


def test_no_release_that_rejected_it_is_left_in_doubt(tmp_path: Path) -> None:
    """A doubt is harm to a release that was not asked for, but where only the base model is missing."""
    source = edited("lora-plain-0.21.2", tmp_path / "in", modules_to_save=["head"])
    repair = plan(examine(str(source)))
    assert repair.unseen == peft("0.6", "0.13")
    strange = load_file(source / "adapter_model.safetensors")
    for block in (0, 1):
        strange[f"base_model.model.blocks.{block}.k.lora_A.weight"] = np.zeros((4, 8), np.float32)
        strange[f"base_model.model.blocks.{block}.k.lora_B.weight"] = np.zeros((8, 4), np.float32)
    save_file(strange, source / "adapter_model.safetensors")
    kept = plan(examine(str(source)))
    assert "CD324" in {finding.code for finding in kept.findings}
    assert (kept.unseen, kept.after.config) == (frozenset(), read(str(source)).config)
    assert [step.title for step in kept.refused] == ["drop config keys without meaning"]


def test_a_fix_says_which_releases_it_leaves_to_the_base_model(run: Any, tmp_path: Path) -> None:
    source = edited("lora-plain-0.21.2", tmp_path / "in", modules_to_save=["head"])
    output = " ".join(run("fix", source, tmp_path / "out").output.split())
    assert "what PEFT 0.6.0 – 0.13.2 makes of it hangs on the model: name it with --base" in output


@pytest.mark.parametrize("spec", ["sglang", "vllm", "tgi", "servers", "peft==*"])
@pytest.mark.parametrize("method", ["IA3", "VERA"])
def test_a_plan_for_another_method_ends(tmp_path: Path, method: str, spec: str) -> None:
    """With every key that PEFT writes: what a LoRA's config lacks was added, and dropped again, for ever."""
    import peft as real

    config = {"IA3": real.IA3Config, "VERA": real.VeraConfig}[method](target_modules=["q", "v"]).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    factors = {"IA3": {"ia3_l": (8, 1)}, "VERA": {"vera_lambda_b": (8,), "vera_lambda_d": (256,)}}[method]
    tensors = {
        f"base_model.model.blocks.0.{module}.{name}": np.ones(shape, np.float32)
        for module in "qv" for name, shape in factors.items()
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "peft_type": method}, default=str))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    repair = plan(examine(str(tmp_path), Question(ids(spec))), ids(spec))
    assert len(repair.done) < 6


def test_a_form_that_was_asked_for_silences_no_rejection(run: Any, tmp_path: Path) -> None:
    """0.20 adapts other layers than 0.19.1, and stops at the pattern of an AdaLoRA, which a LoRA has not got."""
    modules = [f"m.layers.{layer}.parts.1.q" for layer in (0, 1)]
    config = {
        "peft_type": "ADALORA", "init_r": 4, "target_r": 2, "lora_alpha": 8, "lora_dropout": 0.0, "total_step": 10,
        "tinit": 1, "tfinal": 2, "peft_version": "0.19.1", "target_modules": ["q"], "layers_to_transform": [1],
        "rank_pattern": {f"{module}.lora_E": [True, True, False, False] for module in modules},
    }  # fmt: skip
    shapes = {"lora_A": (2, 16), "lora_B": (16, 2), "lora_E": (2, 1)}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/adapter_config.json").write_text(json.dumps(config))
    save_file(
        {f"base_model.model.{m}.{name}": np.ones(shape, np.float32) for m in modules for name, shape in shapes.items()},
        tmp_path / "in/adapter_model.safetensors",
    )
    assert verdict("peft==0.20.0", examine(str(tmp_path / "in")).findings) == "rejects"
    assert run("fix", tmp_path / "in", tmp_path / "out", "--to", "lora").exit_code == 0
    assert verdict("peft==0.20.0", examine(str(tmp_path / "out")).findings) == "accepts"
    assert compare(read(str(tmp_path / "in")), read(str(tmp_path / "out"))).verdict == "same"


def test_biases_that_were_lost_are_not_said_to_be_none(run: Any, tmp_path: Path) -> None:
    source = edited("lora-plain-0.21.2", tmp_path / "in", bias="lora_only")
    result = run("fix", source, tmp_path / "out", "--for", "vllm")
    assert result.exit_code == 1
    assert "refused say that there is no bias" in " ".join(result.output.split())


def test_parameters_keep_their_rank_and_scale(run: Any, tmp_path: Path) -> None:
    """The factors of a parameter with experts have a multiple of the rank."""
    source = edited(
        "lora-plain-0.21.2", tmp_path / "in", target_parameters=["blocks.0.q.weight"], rank_pattern={"q": 4}
    )
    assert run("fix", source, tmp_path / "out", "--to", "lora").exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_initialisation_that_changes_the_base_keeps_its_rank_and_scale(run: Any, tmp_path: Path, init: str) -> None:
    """Both decide what a load takes off the base weights."""
    source = edited("lora-plain-0.21.2", tmp_path / "in", init_lora_weights=init, alpha_pattern={"v": 16})
    assert run("fix", source, tmp_path / "out", "--to", "lora").exit_code == 1
    assert not (tmp_path / "out").exists()
    other = edited("lora-plain-0.21.2", tmp_path / "other", init_lora_weights=init, alpha_pattern={"v": 8})
    assert compare(read(str(source)), read(str(other))).verdict != "same"


def test_the_meaning_is_not_taken_from_releases_that_did_not_save_it(run: Any, tmp_path: Path) -> None:
    """The one that did rejects it; 0.5 and older read no patterns and would take it."""
    source = edited("lora-plain-0.21.2", tmp_path / "in", rank_pattern={"q": 2}, alpha_pattern={"q": 32})
    assert run("fix", source, tmp_path / "out", "--for", "peft").exit_code == 1
    assert not (tmp_path / "out").exists()


def other_method(folder: Path, method: str, shapes: dict[str, tuple[int, ...]], **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": method, "target_modules": ["q"], **config}))
    tensors = {f"base_model.model.b.q.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_a_default_that_changed_is_not_left_out(run: Any, tmp_path: Path) -> None:
    """PEFT 0.14 and 0.15 take r 8 where a config has none, and then refuse oft_block_size beside it."""
    import peft as real

    config = {key: value for key, value in real.OFTConfig().to_dict().items() if not isinstance(value, set)}
    config |= {"r": 0, "oft_block_size": 4, "peft_type": "OFT", "target_modules": ["q"]}
    source = other_method(tmp_path / "in", "OFT", {"oft_R.weight": (2, 6)}, **config)
    run("fix", source, tmp_path / "out", "--for", "peft==0.15.2", "--best-effort")
    run("fix", source, tmp_path / "plain")
    for out in (tmp_path / "out", tmp_path / "plain"):
        assert not out.exists() or json.loads((out / "adapter_config.json").read_text())["r"] == 0


def test_other_targets_are_not_the_same(tmp_path: Path) -> None:
    one = other_method(tmp_path / "a", "IA3", {"ia3_l": (8, 1)}, feedforward_modules=[])
    other = other_method(tmp_path / "b", "IA3", {"ia3_l": (8, 1)}, feedforward_modules=[], target_modules=["v"])
    excluded = other_method(tmp_path / "c", "IA3", {"ia3_l": (8, 1)}, feedforward_modules=[], exclude_modules=["q"])
    assert compare(read(str(one)), read(str(other))).verdict == "cannot tell"
    assert compare(read(str(one)), read(str(excluded))).verdict == "cannot tell"


def test_a_bin_beside_shards_is_what_peft_reads(tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(FIXTURES / "lora-bin-sliced-0.12.0", source)
    save_file({"base_model.model.x.lora_A.weight": np.ones((4, 8), np.float32)}, source / "adapter_model-1.safetensors")
    index = {"weight_map": {"base_model.model.x.lora_A.weight": "adapter_model-1.safetensors"}}
    (source / "adapter_model.safetensors.index.json").write_text(json.dumps(index))
    assert read(str(source)).adapter.weights == ("adapter_model.bin",)
    assert [row["verdict"] for row in load(sys.executable, [source])] == ["accepts"]
    assert verdict("peft==0.21.2", examine(str(source)).findings) == "accepts"


def test_a_form_that_was_asked_for_is_repaired_once(run: Any, tmp_path: Path) -> None:
    """0.5 rejects the ranks, and in one rank it takes the layers and not the biases: beside what that wants, what needs
    no release to be named is repaired as well.
    """
    pattern = {"q": 4, "v": 4}
    source = edited("lora-plain-0.21.2", tmp_path / "in", r=1, rank_pattern=pattern, alpha_pattern=pattern, bias="all")
    weights = source / "adapter_model.safetensors"
    tensors = load_file(weights)
    layers = {key.partition(".lora_")[0] for key in tensors}
    save_file({**tensors, **{f"{layer}.base_layer.bias": np.ones(16, np.float32) for layer in layers}}, weights)
    assert verdict("peft==0.5.0", examine(str(source)).findings) == "rejects"
    assert run("fix", source, tmp_path / "out", "--to", "lora").exit_code == 0
    result = run("fix", tmp_path / "out", tmp_path / "again", "--to", "lora", "--dry-run")
    assert "nothing to repair" in result.output
