"""Save random adapters of one small model in this environment's PEFT, and do to each pair what `together` speaks of.

usage: PYTHON in_peft.py save FOLDER SEED COUNT
       PYTHON in_peft.py run PAIR...          a folder with `a` and `b` in it; prints one line of JSON each
Imports nothing of ckpt-doctor. What a merge has to compute is worked out from the saved tensors by its definition.
"""

from __future__ import annotations

import json
import random
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
SUMS = ("cat", "svd", "linear")
"""Those whose result is worked out by hand; others by PEFT's own functions of tensors."""
OTHERS = (
    "ties", "ties_svd", "dare_ties", "dare_linear", "dare_ties_svd", "dare_linear_svd", "magnitude_prune",
    "magnitude_prune_svd",
)  # fmt: skip
WEIGHTS = (0.7, 0.4)


class Block(torch.nn.Module):
    """Two square layers, one that narrows and one that widens."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        self.down, self.up = torch.nn.Linear(16, 6), torch.nn.Linear(6, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(torch.tanh(self.down(torch.tanh(self.q(x)) + self.k(x))))


class Model(torch.nn.Module):
    """An embedding, three blocks, a convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 16)
        self.layers = torch.nn.ModuleList(Block() for _ in range(3))
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.score = torch.nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.score(x).sum(1) + self.conv(x[:, None]).mean()


IDS = torch.arange(20).reshape(2, 10)


def model() -> Model:
    """The one model."""
    torch.manual_seed(0)
    return Model().eval()


def _draw(rng: random.Random) -> Any:
    """A config; what is rare in the field is so here."""
    some = rng.random
    names = ["q", "k", "down", "up", "embed", "conv"]
    if some() < 0.06:
        return AdaLoraConfig(init_r=4, target_r=2, total_step=100, target_modules=["q", "k"], inference_mode=True)
    if some() < 0.04:
        return IA3Config(target_modules=["q", "k"], feedforward_modules=[], inference_mode=True)
    linear = rng.sample(names[:4], rng.randint(1, 3))
    targets: Any = linear + [name for name in names[4:] if some() < 0.15]
    more: dict[str, Any] = {}
    if some() < 0.2:
        targets = rf".*\.({'|'.join(sorted(linear))})"
    elif some() < 0.1:
        more["exclude_modules"] = ["layers.1.q"]
    if some() < 0.12:
        more["layers_to_transform"], targets = rng.sample(range(3), rng.randint(1, 2)), linear
    if some() < 0.12:
        more["modules_to_save"] = ["score"]
    if some() < 0.2:
        more["rank_pattern"] = {rng.choice(linear): rng.choice([2, 4, 8])}
    if some() < 0.2:
        more["alpha_pattern"] = {rng.choice(linear): rng.choice([2, 4, 8])}
    if some() < 0.15:
        more["lora_dropout"] = 0.1
    if some() < 0.08 and not {"embed", "conv"} & {*targets}:
        more["use_dora"] = True
    if some() < 0.06:
        more["bias"] = "lora_only"
    return LoraConfig(
        r=rng.choice([2, 4, 4, 4, 8]), lora_alpha=rng.choice([4, 8, 8, 16]), target_modules=targets,
        use_rslora=some() < 0.15, init_lora_weights=rng.choice([True, "gaussian"]), inference_mode=True, **more,
    )  # fmt: skip


def _trained(wrapped: Any, config: Any) -> Any:
    """The model with random numbers in all that would be trained."""
    biased = getattr(config, "bias", "none") != "none"
    for key, value in wrapped.named_parameters():
        if re.search(r"lora_|ia3_|modules_to_save", key) or (biased and key.endswith("base_layer.bias")):
            value.data = torch.randn_like(value) * (1 if "magnitude" in key else 0.3)
    return wrapped


def save(folder: Path, seed: int, count: int) -> None:
    """Pairs 0, 1, ... each with two adapters that this PEFT saved, whose every factor is random."""
    (folder / "base").mkdir(parents=True)
    save_file(model().state_dict(), str(folder / "base/model.safetensors"))
    rng = random.Random(seed)
    for number in range(count):
        same = rng.random() < 0.3
        for name in ("a", "b"):
            while True:
                with suppress(Exception):  # what this release does not have, or does not take
                    config = _draw(rng)
                    torch.manual_seed(rng.randrange(1 << 30))
                    wrapped = get_peft_model(model(), config)
                    _trained(wrapped, config).save_pretrained(str(folder / str(number) / name))
                    break
            if same and name == "a":
                state = rng.getstate()
                place = folder / str(number) / "a/adapter_config.json"
                twin = json.loads(place.read_text())
        if same:  # as people have them: the same recipe, other data
            place = folder / str(number) / "b"
            for path in place.iterdir():
                path.unlink()
            kind = {"LORA": LoraConfig, "ADALORA": AdaLoraConfig, "IA3": IA3Config}[twin["peft_type"]]
            known = {
                key: value
                for key, value in twin.items()
                if key in kind.__dataclass_fields__ and key not in ("peft_type", "auto_mapping")
            }
            if rng.random() < 0.5 and "r" in known and twin["peft_type"] == "LORA":
                known["r"] = rng.choice([2, 4, 8])
            if rng.random() < 0.3:
                known["lora_alpha"] = rng.choice([4, 8])
            known = {key: value for key, value in known.items() if key in kind.__dataclass_fields__}
            config = kind(**known)
            _trained(get_peft_model(model(), config), config).save_pretrained(str(place))
            rng.setstate(state)


def _alone(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, tuple[torch.Tensor, torch.Tensor, float]], Any]:
    """What one adapter computes alone: its deltas by module as `get_delta_weight` has them, its factors, its model."""
    wrapped = PeftModel.from_pretrained(model(), str(folder)).eval()
    deltas, factors = {}, {}
    for name, module in wrapped.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and hasattr(module, "lora_A"):
            if isinstance(module.lora_A, torch.nn.ParameterDict):  # AdaLoRA, which is not merged
                continue
            if "default" in module.lora_A:
                a, b = module.lora_A["default"].weight.data, module.lora_B["default"].weight.data
            elif "default" in module.lora_embedding_A:
                a, b = module.lora_embedding_A["default"].data, module.lora_embedding_B["default"].data
            else:
                continue
            deltas[name] = module.get_delta_weight("default").detach()
            factors[name] = a, b, float(module.scaling["default"])
    return deltas, factors, wrapped


def _product(a: torch.Tensor, b: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if like.dim() == 4:
        return (b.flatten(1) @ a.flatten(1)).reshape(like.shape)
    delta = b @ a
    return delta if delta.shape == like.shape else delta.T


def _cut(delta: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest matrix of a rank."""
    u, s, v = torch.linalg.svd(delta, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def _combined(way: str, tensors: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """What PEFT's own function makes of tensors and weights (utils/merge_utils.py)."""
    from peft.utils import merge_utils

    more = ("total",) if "ties" in way else ()
    return getattr(merge_utils, way)(tensors, weights, _density(way), *more)


def _density(way: str) -> float:
    """What is kept; all of it where it would be drawn at random."""
    return 1.0 if "dare" in way else 0.5


def _computed(deltas: dict[str, torch.Tensor], head: dict[str, torch.Tensor]) -> torch.Tensor:
    plain = model()
    modules = dict(plain.named_modules())
    for name, delta in deltas.items():
        modules[name].weight.data += delta.reshape(modules[name].weight.shape)
    plain.load_state_dict(head, strict=False)
    return plain(IDS)


def _head(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    return {key[len("base_model.model.") :]: value for key, value in tensors.items() if ".score." in key}


def _merged(pair: Path, way: str, alone: list[Any]) -> tuple[str, str]:
    """What add_weighted_adapter does with one way of merging: accepts, rejects or misloads."""
    try:
        wrapped = PeftModel.from_pretrained(model(), str(pair / "a"), adapter_name="a")
        wrapped.load_adapter(str(pair / "b"), adapter_name="b")
        density = {} if way in SUMS else {"density": _density(way)}
        torch.manual_seed(1)
        wrapped.add_weighted_adapter(["a", "b"], list(WEIGHTS), "m", combination_type=way, **density)
        wrapped.set_adapter("m")
        out = wrapped.eval()(IDS)
    except Exception as error:
        return "rejects", f"{type(error).__name__}: {error}"
    deltas: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys([*alone[0][1], *alone[1][1]]):
        sides = [(side, weight) for side, weight in zip(alone, WEIGHTS, strict=True) if name in side[1]]
        like = sides[0][0][0][name]
        if way == "linear":
            a, b = (
                sum((weight * side[1][name][2]) ** 0.5 * side[1][name][at] for side, weight in sides) for at in (0, 1)
            )
            deltas[name] = _product(a, b, like)
        elif way in ("cat", "svd"):
            deltas[name] = sum(weight * side[0][name] for side, weight in sides)
            if way == "svd":
                deltas[name] = _cut(deltas[name].flatten(1), wrapped.peft_config["m"].r).reshape(like.shape)
        else:
            module = dict(wrapped.base_model.model.named_modules())[name]
            if "m" in module.lora_A:
                deltas[name] = _product(module.lora_A["m"].weight.data, module.lora_B["m"].weight.data, like)
            elif "m" in module.lora_embedding_A:
                deltas[name] = _product(module.lora_embedding_A["m"].data, module.lora_embedding_B["m"].data, like)
            else:
                return "misloads", f"{name} is not in the merged one"
            if way.endswith("_svd"):
                weights = torch.tensor([weight for _, weight in sides])
                whole = _combined(way.removesuffix("_svd"), [side[0][name].flatten(1) for side, _ in sides], weights)
                deltas[name] = _cut(whole, wrapped.peft_config["m"].r).reshape(like.shape)
            else:
                weights = torch.tensor([(weight * side[1][name][2]) ** 0.5 for side, weight in sides])
                a, b = (_combined(way, [side[1][name][at] for side, _ in sides], weights) for at in (0, 1))
                deltas[name] = _product(a, b, like)
    head = {**_head(pair / "b"), **_head(pair / "a")}
    expected = _computed(deltas, head)
    if (pair / "a").exists() and any(
        "magnitude" in key for name in ("a", "b") for key in load_file(str(pair / name / "adapter_model.safetensors"))
    ):
        return "misloads", "the magnitudes of DoRA are in none"
    off = float((out - expected).abs().max() / (expected.abs().max() + 1e-9))
    return ("accepts", "") if off < 1e-4 else ("misloads", f"off by {off:.1g}")


def _swapped(pair: Path) -> tuple[str, str]:
    try:
        from peft.utils.hotswap import hotswap_adapter
    except ImportError as error:
        return "rejects", str(error)
    expected = PeftModel.from_pretrained(model(), str(pair / "b")).eval()(IDS)
    try:
        wrapped = PeftModel.from_pretrained(model(), str(pair / "a"))
        hotswap_adapter(wrapped, str(pair / "b"), adapter_name="default", torch_device="cpu")
        out = wrapped.eval()(IDS)
    except Exception as error:
        return "rejects", f"{type(error).__name__}: {error}"
    off = float((out - expected).abs().max() / expected.abs().max())
    return ("accepts", "") if off < 1e-4 else ("misloads", f"off by {off:.1g}")


def _beside(pair: Path) -> tuple[str, str]:
    expected = [PeftModel.from_pretrained(model(), str(pair / name)).eval()(IDS) for name in ("a", "b")]
    try:
        wrapped = PeftModel.from_pretrained(model(), str(pair / "a"), adapter_name="a")
        wrapped.load_adapter(str(pair / "b"), adapter_name="b")
        out = []
        for name in ("a", "b", "a", "b"):  # and back again
            wrapped.set_adapter(name)
            out.append(wrapped.eval()(IDS))
    except Exception as error:
        return "rejects", f"{type(error).__name__}: {error}"
    off = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(out, expected * 2, strict=True))
    return ("accepts", "") if off < 1e-4 else ("misloads", f"off by {off:.1g}")


def run(pair: Path) -> dict[str, tuple[str, str]]:
    """What each use of a pair does."""
    alone = [_alone(pair / name) for name in ("a", "b")]
    with torch.no_grad():
        merged = {way: _merged(pair, way, alone) for way in (*SUMS, *OTHERS)}
        return {**merged, "hotswap": _swapped(pair), "beside": _beside(pair)}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "save":
        save(Path(rest[0]), int(rest[1]), int(rest[2]))
    else:
        for place in rest:
            print(json.dumps({"pair": place, "uses": run(Path(place))}), flush=True)
