"""Inputs that mean harm: none hangs, crashes, runs code or is called what it is not (hostile.py has them).

`scripts/check_hostile.py` gives all to the real command with its time and memory measured; here are the small ones, in
this process, and what bounds the large ones.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import check_hostile
import check_odd_values
import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_doctor.adapter import NOTHING_ASKED, AdapterError, limits
from ckpt_doctor.adapter.runtimes import NEWEST
from ckpt_doctor.facts import patterns, targets
from ckpt_doctor.rules.whole import has_module
from ckpt_doctor.verbs.scan import examine
from ckpt_doctor.verbs.together import together

SMALL = {name: case for name, case in hostile.inputs().items() if not case.long}
SECONDS = 5
"""Of processor time, for a scan that takes a hundredth of one: what hangs takes for ever, and a machine may be slow."""


@pytest.mark.parametrize("name", SMALL)
def test_it_ends_soon_and_is_not_called_healthy(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = SMALL[name]
    folder = hostile.built(tmp_path / "in", case)
    start = time.process_time()
    report = examine(str(folder))
    assert time.process_time() - start < SECONDS
    assert "please report it" not in (report.error or "")
    assert not (tmp_path / hostile.MARK).exists()
    codes = {finding.code for finding in report.findings}
    assert not case.finds or codes & {*case.finds}, (codes, report.error)
    if case.doubted and not report.error:
        assert report.verdicts[NEWEST] != "accepts"


@pytest.mark.parametrize("name", [name for name in SMALL if "slow" in name])
def test_a_costly_pattern_is_undecided_everywhere(run: Any, tmp_path: Path, name: str) -> None:
    folder = hostile.built(tmp_path / "in", SMALL[name])
    for arguments in (("fix", folder, tmp_path / "out", "--for", "peft"), ("compare", folder, hostile.LORA),
                      ("together", folder, hostile.LORA)):  # fmt: skip
        start = time.process_time()
        result = run(*arguments)
        assert time.process_time() - start < SECONDS
        assert result.exit_code in (1, 2)
        assert "please report it" not in result.output
    assert not (tmp_path / "out").exists()


EVERY = (
    "ugly names", "odd strings in the config", "lora_alpha NaN", "lora_alpha 1e400", "a size of 4,301 digits in the header",
    "the config cannot be read", "the weights cannot be read", "100,000 keys", "peft_version of 5,000 digits", "peft_version without a minor", "numbers of six bits", "numbers of four bits", "1,000 dimensions", "sizes of 2 ** 63 and 0", "rank 0 by 10 ** 9",
    "rank 0 by 10 ** 9, of AdaLoRA", "1,000 layers of one storage",
)  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_no_command_fails_unforeseen_or_commands_anything(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CKPT_DOCTOR_CACHE", str(tmp_path / "cache"))
    adapter = hostile.built(tmp_path / "in", SMALL[name])
    for command, arguments in check_hostile.commands(adapter, tmp_path).items():
        result = run(*arguments)
        usual = check_hostile.Run(0, 0, 0, "", "")
        made = check_hostile.Run(result.exit_code, 0, 0, result.stdout, result.stderr)
        assert check_hostile.faults(name, made, usual, arguments) == [], command
    assert check_hostile.of_files(tmp_path) == []


@pytest.mark.parametrize("name", hostile.SAFETENSORS)
def test_headers_are_judged_as_safetensors_judges(name: str) -> None:
    assert [line for line in check_hostile.readers() if f": {name}:" in line] == []


def test_a_link_is_not_followed_out_of_the_adapter(run: Any, tmp_path: Path) -> None:
    adapter = hostile.built(tmp_path / "in", SMALL["a link to a file elsewhere"])
    (adapter / "NOTES.md").write_text("mine")
    (adapter / "same.md").symlink_to("NOTES.md")
    assert run("fix", adapter, tmp_path / "out").exit_code == 0
    carried = sorted(name for name in os.listdir(tmp_path / "out") if name.endswith(".md"))
    assert carried == ["NOTES.md", "same.md"]


def test_a_link_into_the_cache_of_the_hub_is_followed(run: Any, tmp_path: Path) -> None:
    model = tmp_path / "models--a--b"
    (model / "blobs").mkdir(parents=True)
    shutil.copytree(hostile.LORA, model / "snapshots" / "0")
    (model / "blobs/1").write_text("card")
    (model / "snapshots/0/README.md").symlink_to("../../blobs/1")
    assert run("fix", model / "snapshots/0", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/README.md").read_text() == "card"


def test_a_norm_that_overflows_is_not_the_same(run: Any, tmp_path: Path) -> None:
    for name, first in (("a", 1e200), ("b", 2e200)):
        hostile.built(tmp_path / name, hostile.Input(hostile.overflow(first)))
    assert run("compare", tmp_path / "a", tmp_path / "b").exit_code != 0


@pytest.mark.parametrize("place", ["--base", "--config", "--baseline"])
def test_a_device_is_read_nowhere(run: Any, place: str) -> None:
    result = run("scan", hostile.LORA, place, "/dev/zero")
    assert result.exit_code == 2
    assert "please report it" not in result.output


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "model.safetensors"])
@pytest.mark.parametrize("make", [hostile.fifo, hostile.device])
def test_a_base_has_no_pipes_and_devices(run: Any, tmp_path: Path, make: Any, name: str) -> None:
    make(name)(tmp_path)
    result = run("scan", hostile.LORA, "--for", "servers", "--base", tmp_path)
    assert result.exit_code == 2
    assert "is not a regular file" in result.stderr


def test_a_config_of_a_base_is_bounded(run: Any, tmp_path: Path) -> None:
    """One of 60 MB took 1.4 GB."""
    (tmp_path / "config.json").write_text('{"model_type":"llama","a":[' + "[]," * limits.VALUES.most + "[]]}")
    result = run("scan", hostile.LORA, "--for", "servers", "--base", tmp_path)
    assert result.exit_code == 2
    assert "has more than 2,000,000 values" in result.stderr


# Bounds


BEYOND = {
    "200,001 dicts on the stack": "more than 200,000 values on the stack of its pickle",
    "750,001 memos": "more than 750,000 values that its pickle remembers",
}

MEASURED = """
import json, re, sys, time
from ckpt_doctor.verbs.scan import examine
start = time.process_time()
report = examine(sys.argv[1])
seconds = time.process_time() - start
(most,) = re.findall(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(json.dumps([report.error, seconds, int(most) << 10]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its own memory alone")
@pytest.mark.parametrize("name", BEYOND)
def test_a_pickle_beyond_a_limit_is_said_soon_and_takes_little(tmp_path: Path, name: str) -> None:
    folder = hostile.built(tmp_path / "in", SMALL[name])
    done = subprocess.run([sys.executable, "-c", MEASURED, folder], capture_output=True, text=True, check=True)
    said, seconds, memory = json.loads(done.stdout)
    assert BEYOND[name] in said
    assert seconds < check_hostile.SECONDS
    assert memory < check_hostile.MEMORY


def test_each_limit_says_what_is_too_much() -> None:
    for limit in (value for value in vars(limits).values() if isinstance(value, limits.Limit)):
        limit.check(limit.most, "it")
        with pytest.raises(AdapterError, match=f"it has more than {limit.most:,} "):
            limit.check(limit.most + 1, "it")


def test_many_tensors_and_deep_or_many_values_are_beyond_the_limits() -> None:
    limits.check_names(["a.b"] * 3, "it")
    for names in (["a" * 501], ["a." * 64 + "b"], ["a"] * (limits.TENSORS.most + 1)):
        with pytest.raises(AdapterError):
            limits.check_names(names, "it")
    with pytest.raises(AdapterError):
        limits.check_values(b"[" + b"1," * limits.VALUES.most, "it")
    deep = hostile.nested(101)
    limits.check_depth(json.loads(hostile.nested(100)), hostile.nested(100).encode(), "it")
    with pytest.raises(AdapterError):
        limits.check_depth(json.loads(deep), deep.encode(), "it")


def test_long_numbers_are_whole_ones() -> None:
    numbers = [10**18 + at for at in range(limits.LONG.most + 1)]
    limits.check_numbers(json.dumps([0.0012345678901234567] * 2_000 + ["1" * 64] * 2_000).encode(), "it")
    limits.check_numbers(json.dumps(numbers[1:]).encode(), "it")
    for text in (json.dumps(numbers), json.dumps({"a": numbers}, indent=1), json.dumps([-at for at in numbers])):
        with pytest.raises(AdapterError, match="whole numbers"):
            limits.check_numbers(text.encode(), "it")


def test_what_has_no_numbers_stands_for_few() -> None:
    wide = ("F32", (0, limits.EMPTY.most))
    limits.check_forms([("F32", (4, 1 << 40)), wide, ("F32", (0, 0))], "it")
    for forms in ([("F32", (0, limits.EMPTY.most + 1))], [wide] * 65, [("F32", (1,) * 33)]):
        with pytest.raises(AdapterError):
            limits.check_forms(forms, "it")


def test_names_of_too_many_kinds_are_beyond_the_limits() -> None:
    limits.check_names([f"layers.{at}.q" for at in range(limits.KINDS.most + 1)], "it")
    with pytest.raises(AdapterError, match="names differ in more than the numbers"):
        limits.check_names([f"layer{at}.q" for at in range(limits.KINDS.most + 1)], "it")


def test_what_is_missing_in_a_large_file_is_asked_of_one_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 layers with holes asked of 250,000 names whether each release adapts them: 37 s."""
    asked = list[str]()
    monkeypatch.setattr(targets, "targeted", lambda *named: bool(asked.append(named[1])))
    gaps = targets.gaps_beside(f"layers.{at * 7919 % 99991}.q{at % 7}" for at in range(5_000))
    assert len(gaps.names) > 9_000
    assert targets.holes(gaps, {"target_modules": ["q"]}, (0, 21)) == []
    assert len(asked) == 7


def test_what_several_of_many_layers_become_is_asked_of_one_of_a_kind(tmp_path: Path) -> None:
    """A merge went through all layers for each layer where no release takes the adapter: 109 s."""
    many = hostile.of_modules(*(f"layers.{at}.q{at % 7}" for at in range(8_000)))
    folder = hostile.built(tmp_path / "in", hostile.Input(many))
    start = time.process_time()
    together([str(folder), str(hostile.LORA)], NOTHING_ASKED)
    assert time.process_time() - start < SECONDS


def test_one_beyond_the_limits_stops_no_other(run: Any, tmp_path: Path) -> None:
    for name, case in (("a", "healthy"), ("b", "a name of 1 MB"), ("c", "healthy")):
        hostile.built(tmp_path / "in" / name, SMALL[case])
    result = run("scan", tmp_path / "in", "--format", "json")
    errors = [report["error"] for report in json.loads(result.stdout)["reports"]]
    assert result.exit_code == 2
    assert [bool(error) for error in errors] == [False, True, False]
    assert "more than 500 characters in the name of a tensor" in errors[1]


# Patterns

PIECES = st.sampled_from([
    "q", "v", "layers", "layers.0", r"model\.layers\.1", "q_proj", r"\d+", "[a-z_]+", ".*", "|", "(", ")", "(?:", ".",
    r"\.", "^", "$", "?", "+", "*", "{1,2}", r".*\.", r"(.*\.)?", "[^.]", r"\w", "(?=q)", "[", "]", "\\", "-",
])  # fmt: skip
NAMES = st.lists(st.sampled_from(["q", "v", "layers", "0", "1", "q_proj", "model", "x", "", "\n"]), max_size=5)


def truth(pattern: str, name: str, *, whole: bool = False) -> bool:
    try:
        return (re.fullmatch if whole else re.match)(pattern, name) is not None
    except (re.error, RecursionError):
        return False


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=7).map("".join), NAMES.map(".".join))
@pytest.mark.filterwarnings("ignore")
def test_patterns_match_as_re_does_or_are_not_decided(pattern: str, name: str) -> None:
    patterns.new_adapter()
    try:
        assert patterns.whole(pattern, name) == truth(pattern, name, whole=True)
        for form in (patterns.NEW, patterns.OLD):
            assert (patterns.Keys([pattern], form).first(name) is not None) == truth(form.replace("{}", pattern), name)
        form = r"(^|.*\.){}($|\..*)"
        assert (patterns.matched(form, pattern, name) is not None) == truth(form.replace("{}", pattern), name)
    except patterns.TooCostly:
        pass


def test_the_first_of_many_keys_is_found() -> None:
    draw = random.Random(0)  # noqa: S311 - the same each time
    pieces = ["q", "v", "layers.0.q", "0.q", "^layers.0.q", r"\d+.q", "q|v", r"layers\.0\.v", "x.q"]
    for _ in range(300):
        keys = draw.sample(pieces, 4)
        name = ".".join(draw.choice(["layers", "0", "q", "v", "x"]) for _ in range(draw.randint(1, 4)))
        patterns.new_adapter()
        expected = next((key for key in keys if truth(rf"(.*\.)?({key})$", name)), None)
        assert patterns.Keys(keys).first(name) == expected


PLAIN = (
    "q_proj", r".*\.q_proj", r".*\.(q_proj|v_proj)", r"(?:model\.layers\.0\.q|model\.layers\.1\.q)", r"(?:.*\.)?(?:a|b)",
    "^model.layers.0.q$", "model.layers.10.mlp.down_proj",
)  # fmt: skip


def test_what_peft_and_fix_write_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_compiled", None)
    for pattern in PLAIN:
        patterns.whole.__wrapped__(pattern, "model.layers.0.q_proj")
        patterns.Keys([pattern]).first("model.layers.0.q_proj")


COSTLY = (
    hostile.SLOW, "(a|a)+!", "a?" * 30 + "a" * 30, ".*" * 9 + "!", "(?:q{1000}){1000}",
    "q" * 20_000 + "+", r"(\w+\.)+q", r"(q)\1", "(?x)q", "(?:a|a.|.a)" * 30 + "!", "(?P<x>a|aa)" + "(?:a|aa)" * 29 + "!",
    "a{0,1}" * 40 + "!", "(?i)" + "(?:A|a)" * 40 + "!", "(?:(?!(?:a+)+!).)*q",
)  # fmt: skip


@pytest.mark.parametrize("pattern", COSTLY, ids=range(len(COSTLY)))
def test_what_re_would_take_for_ever_for_is_not_decided(pattern: str) -> None:
    patterns.new_adapter()
    with pytest.raises(patterns.TooCostly):
        patterns.whole(pattern, "blocks.0." + "a" * 60 + ".q")


UNSLOTH = (
    "(?:.*?(?:{0}).*?(?:{1}).*?(?:{2}).*?)|" + r"(?:\bmodel\.layers\.[\d]{{1,}}\.(?:{1})\.(?:(?:{2})))"
).format(  # unsloth_zoo/peft_utils.py: get_peft_regex
    "vision|image|visual|patch|language|text", "self_attn|attention|attn|mlp|feed_forward|ffn|dense|mixer",
    "k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj|correlation|linear",
)  # fmt: skip
REAL = (
    UNSLOTH,
    # LLaMA-Factory, model/model_utils/visual.py: patch_target_modules
    r"^(?!.*(?:vision_tower|multi_modal_projector)).*(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*",
    # ms-swift: get_multimodal_target_regex, and lists of prefixes
    r"^(model\.language_model(?=\.).*\.(gate_proj|q_proj|up_proj|v_proj|o_proj|k_proj|down_proj))$",
    r"^(language_model|model\.language_model)(?!.*(lm_head|output|emb|wte|shared)).*",
    # PEFT, tuners/lora/config.py: LoraConfig, and its tests
    r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", r".*.1.*(query_key_value|dense)$",
    # model cards
    r".*(q_proj|v_proj)$", r"model\.layers\.(?:[0-9]|1[0-9])\..*", "(?i).*", r".*\.layers\.\d+\.self_attn\.(q|k|v|o)_proj",
    r"^(?!.*vision).*(?:q_proj|v_proj).*$", r"((?!(?:vision_tower|lm_head)).)*_proj", r".*self_attn\.[qkv]_proj.*",
    r".*(vision_model|modality_projection|perceiver_resampler).*(out_proj|fc1|fc2|down_proj|gate_proj|up_proj|k_proj|v_proj).*$",
    r"^(?=.*self_attn)(?=.*(q_proj|v_proj)).*$", r"(model\.)?layers\.\d+\.(self_attn\.)?(q|v)_proj",
)  # fmt: skip
MODULES = (
    "lm_head", "model.layers.0.self_attn.q_proj", "model.layers.27.mlp.down_proj", "model.visual.blocks.3.attn.qkv",
    "model.language_model.layers.12.self_attn.v_proj", "decoder.block.1.layer.1.EncDecAttention.q",
    "language_model.model.layers.31.mlp.gate_proj", "vision_tower.vision_model.encoder.layers.26.self_attn.out_proj",
    "base_model.model.model.vision_model.global_transformer.layers.7.self_attn.k_proj", "transformer.h.11.mlp.dense",
    "thinker.audio_tower.layers.3.self_attn.q_proj", "Model.Layers.1.Q_Proj",
)  # fmt: skip


@pytest.mark.parametrize("pattern", REAL, ids=range(len(REAL)))
def test_patterns_that_people_have_are_decided(pattern: str) -> None:
    patterns.new_adapter()
    for name in MODULES:
        assert patterns.whole(pattern, name) == truth(pattern, name, whole=True), name


def test_all_patterns_of_an_adapter_have_one_budget() -> None:
    patterns.new_adapter()
    keys = patterns.Keys([f".*x{at}.*" for at in range(3)])
    assert keys.first("layers.0") is None
    patterns._Spent.pairs = limits.PATTERN_PAIRS
    with pytest.raises(patterns.TooCostly):
        keys.first("layers.0")
    patterns.new_adapter()
    assert keys.first("layers.0") is None


def test_patterns_that_are_many_are_not_all_compiled() -> None:
    patterns.new_adapter()
    patterns._Spent.seconds = limits.PATTERN_BUDGET + 1
    with pytest.raises(patterns.TooCostly):
        patterns.is_pattern("never.+compiled$")
    patterns.new_adapter()
    assert patterns.is_pattern("never.+compiled$")


def test_long_patterns_of_adapters_that_are_done_take_no_memory() -> None:
    """16 of a megabyte each held 550 MB."""
    patterns.new_adapter()
    assert not patterns.whole("|".join(f"q{at}" for at in range(200_000)), "v")
    patterns.new_adapter()
    kept = (patterns._words, patterns._pieces, patterns._table, patterns.whole)
    assert [known.cache_info().currsize for known in kept] == [0] * len(kept)


MANY = [f"z{at}.weight" for at in range(60_000)]
BY_MANY = {
    "target_parameters": hostile.of_modules("layers.0.q", "layers.1.q", target_modules=["q"], target_parameters=MANY),
    "exclude_modules of IA3": hostile.of_method(
        "IA3", [f"layers.{at}.q" for at in range(9_000)], target_modules=["q"], exclude_modules=MANY
    ),
}


@pytest.mark.parametrize("name", BY_MANY)
def test_many_names_are_not_held_against_all_of_a_large_base(run: Any, tmp_path: Path, name: str) -> None:
    """Each name against each of 18,000 parameters: 30 s."""
    base = {f"layers.{at}.{leaf}.weight": (8, 8) for at in range(6_000) for leaf in "qkv"}
    (tmp_path / "model.safetensors").write_bytes(hostile.tensors(base))
    folder = hostile.built(tmp_path / "in", hostile.Input(BY_MANY[name]))
    start = time.process_time()
    run("scan", folder, "--base", tmp_path / "model.safetensors")
    assert time.process_time() - start < 2 * SECONDS


def test_names_that_a_large_base_lacks_are_not_searched_for_without_end() -> None:
    """2,000 in 138,240 parameters: 4 s."""
    patterns.new_adapter()
    base: Any = SimpleNamespace(parameters=dict.fromkeys(f"layers.{at}.weight" for at in range(80_000)))
    subject: Any = SimpleNamespace(base=base, adapted_class="", saved_as=[], task="")
    assert has_module(subject, "layers.79999")
    with pytest.raises(patterns.TooCostly):
        [*(has_module(subject, f"s{at}") for at in range(1_000))]


# Values of every type

OF_A_KEY = ("null", "true", "-1", "[[]]", "{a: []}", "NaN", "10 ** 400", "['a', 1]", "lone surrogate", "(", "ugly")
KEYS = (
    "r", "lora_alpha", "target_modules", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_pattern", "task_type",
    "auto_mapping", "base_model_name_or_path", "peft_type", "init_lora_weights", "bias", "layers_to_transform",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_value_of_another_type_is_no_crash(key: str) -> None:
    values = {word: value for word, value in hostile.ODD.items() if word in OF_A_KEY}
    lines = list(check_odd_values.check("config", keys=[key], values=values, deeper=False))
    assert lines == []


@pytest.mark.parametrize("alpha", ["x", [1], {}, 10**400])
def test_an_alpha_of_a_pattern_that_is_no_number_is_no_crash(run: Any, tmp_path: Path, alpha: object) -> None:
    folder = hostile.built(tmp_path / "in", hostile.Input(hostile.config(alpha_pattern={"q": alpha})))
    for command in (["scan", folder], ["fix", folder, tmp_path / "out", "--best-effort"]):
        assert "report it" not in run(*command, "--for", "peft==*", "--for", "servers").output


@pytest.mark.parametrize("key", ["base", "baseline"])
def test_a_path_of_a_project_has_no_nul(run: Any, tmp_path: Path, key: str) -> None:
    (tmp_path / "ckpt-doctor.toml").write_text(f'{key} = "\\u0000"\n')
    result = run("scan", hostile.LORA, "--config", tmp_path / "ckpt-doctor.toml")
    assert result.exit_code == 2
    assert "is not a text" in result.stderr
