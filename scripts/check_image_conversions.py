"""Prove in diffusers, sd-scripts, LyCORIS and PEFT that a converted adapter computes what the original does there.

    python scripts/check_image_conversions.py SD_SCRIPTS [--record] [WORD...]

It needs diffusers, transformers, peft, lycoris-lora (without its requirements: --no-deps), einops and a checkout of
kohya-ss/sd-scripts. The originals are made by the tools' own code, with random weights; a case whose name has no WORD in
it is left out. Outputs are compared in float32, and the largest difference relative to what the adapter changes is
printed: above 5e-5, which is rounding where a tool merges the adapter, the case fails. With --record the small
originals of cases that hold become the files of `tests/test_image_conversions.py`, with a number or two for each layer
of what PEFT adapted by them. A Flux takes 10 GB: its own code and diffusers' take no narrower one.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import shutil
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from click.testing import CliRunner
from diffusers.loaders import lora_pipeline
from image_tables import UNETS, sdxl_map
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn

from ckpt_doctor.cli import main as command

LIMIT = 5e-5
LARGEST = 150_000
"""Bytes of a file that is kept."""
State = dict[str, torch.Tensor]
SMALL: list[dict[str, Any]] = [
    {
        "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "norm_num_groups": 4,
    },
    {
        **UNETS[2], "block_out_channels": (8, 16, 16), "cross_attention_dim": 8, "attention_head_dim": 4,
        "transformer_layers_per_block": 1, "norm_num_groups": 4, "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    },
]  # fmt: skip
"""Stable Diffusion 1 and XL in small."""


class Pipeline:
    """What a loader asks of a pipeline: its components."""

    hf_device_map = text_encoder = text_encoder_2 = None

    def __init__(self, **components: nn.Module) -> None:
        self.components = components
        vars(self).update(components)


class Diffusion(Pipeline, lora_pipeline.StableDiffusionLoraLoaderMixin):
    """Stable Diffusion."""


class DiffusionXL(Pipeline, lora_pipeline.StableDiffusionXLLoraLoaderMixin):
    """Stable Diffusion XL."""


class Flux(Pipeline, lora_pipeline.FluxLoraLoaderMixin):
    """Flux."""


class Diffusion3(Pipeline, lora_pipeline.SD3LoraLoaderMixin):
    """Stable Diffusion 3."""


class Wan(Pipeline, lora_pipeline.WanLoraLoaderMixin):
    """Wan."""


def unet(which: int) -> nn.Module:
    torch.manual_seed(which)
    return diffusers.UNet2DConditionModel(**SMALL[which]).eval()


def encoder(seed: int) -> nn.Module:
    """A text encoder, in the class whose names all releases of transformers agree on."""
    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, projection_dim=8, eos_token_id=2, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return transformers.CLIPTextModelWithProjection(config).eval()


def output(model: nn.Module) -> torch.Tensor:
    """What a model makes of a fixed input."""
    torch.manual_seed(0)
    name = type(getattr(model, "base_model", model).model if isinstance(model, PeftModel) else model).__name__
    config = model.config
    with torch.no_grad():
        if name == "UNet2DConditionModel":
            more = {}
            if config.get("addition_embed_type"):
                more["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 32), "time_ids": torch.randn(1, 6)}
            made = model(torch.randn(1, 4, 8, 8), 3, torch.randn(1, 4, 8), **more).sample
        elif name == "FluxTransformer2DModel":
            made = model(
                hidden_states=torch.randn(1, 4, config["in_channels"]),
                encoder_hidden_states=torch.randn(1, 3, config["joint_attention_dim"]),
                pooled_projections=torch.randn(1, config["pooled_projection_dim"]), timestep=torch.tensor([0.5]),
                img_ids=torch.zeros(4, 3), txt_ids=torch.zeros(3, 3), guidance=torch.tensor([3.5]),
            ).sample  # fmt: skip
        elif name == "SD3Transformer2DModel":
            made = model(
                hidden_states=torch.randn(1, config["in_channels"], 8, 8),
                encoder_hidden_states=torch.randn(1, 3, config["joint_attention_dim"]),
                pooled_projections=torch.randn(1, config["pooled_projection_dim"]), timestep=torch.tensor([5.0]),
            ).sample  # fmt: skip
        elif name == "WanTransformer3DModel":
            made = model(
                hidden_states=torch.randn(1, 4, 1, 8, 8), timestep=torch.tensor([5.0]),
                encoder_hidden_states=torch.randn(1, 3, config["text_dim"]),
            ).sample  # fmt: skip
        else:
            made = model(torch.arange(8).reshape(1, 8)).text_embeds
    return made.double()


def convert(source: Path, out: Path, *options: str) -> None:
    """ckpt-doctor's own command."""
    done = CliRunner().invoke(command, ["fix", *options, str(source), str(out)])
    if done.exit_code:
        raise SystemExit(f"{source}: {done.output}")


PROVED: dict[str, PeftModel] = {}
"""Component → the model with the adapter that was converted last."""
DATA = Path(__file__).parent.parent / "tests" / "data" / "images"


def adapted(model: nn.Module, folder: Path) -> nn.Module:
    """The model with an adapter of PEFT, which takes all of it and wants no more."""
    made = PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()
    wanted = {key for key in made.state_dict() if re.search(r"lora_|hada_|lokr_", key)}
    there = load_file(str(folder / "adapter_model.safetensors"))
    if len(wanted) != len(there):
        raise SystemExit(f"{len(there)} tensors, of {len(wanted)} of PEFT's")
    return made


def randomised(state: State, scale: float = 0.3) -> State:
    """The same with random numbers but for the alphas, so that nothing is zero."""
    torch.manual_seed(7)
    return {key: value if key.endswith("alpha") else torch.randn(value.shape) * scale for key, value in state.items()}


def saved(state: State, folder: Path, metadata: dict[str, str] | None = None) -> Path:
    """A file in a folder of its own."""
    path = folder / "in" / "original.safetensors"
    path.parent.mkdir()
    save_file(state, str(path), metadata)
    return path


def difference(name: str, models: dict[str, nn.Module], theirs: dict[str, torch.Tensor], folder: Path) -> float:
    """The largest error of the converted adapters, relative to what the originals change."""
    places = {part: folder / part if (folder / part).is_dir() else folder for part in models}
    PROVED.clear()
    PROVED.update({part: adapted(models[part], place) for part, place in places.items()})
    return compared(name, models, theirs, {part: output(model) for part, model in PROVED.items()})


def probes() -> dict[str, dict[str, list[float]]]:
    """Component → module → a sum over what its weight changes by, and over its magnitude, which every number is in."""
    found: dict[str, dict[str, list[float]]] = {}
    for part, model in PROVED.items():
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                delta = module.get_delta_weight("default").detach().double().flatten(1)
                rows, columns = (torch.arange(size, dtype=torch.float64) for size in delta.shape)
                sums = [float(torch.cos(rows) @ delta @ torch.cos(2 * columns + 1))]
                if getattr(module, "lora_magnitude_vector", None):
                    vector = module.lora_magnitude_vector["default"].weight.detach().double().flatten()
                    sums.append(float(torch.cos(rows) @ vector))
                found.setdefault(part, {})[name.removeprefix("base_model.model.")] = sums
    return found


def compared(
    name: str, models: dict[str, nn.Module], theirs: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
) -> float:
    worst = 0.0
    for part, model in models.items():
        change = (theirs[part] - output(model)).abs().max()
        if change < 1e-4:
            raise SystemExit(f"{name}: the original changes nothing of the {part}")
        worst = max(worst, float((found[part] - theirs[part]).abs().max() / change))
    return worst


def by_diffusers(pipeline: type, models: dict[str, nn.Module], path: Path, **options: Any) -> dict[str, torch.Tensor]:
    """What diffusers' own loader makes of a file."""
    parts = {part: copy.deepcopy(model) for part, model in models.items()}
    if "transformer" not in parts:
        parts.setdefault("unet", unet(1))  # which the loader asks for its config
    pipeline(**parts).load_lora_weights(str(path.parent), weight_name=path.name, **options)
    return {part: output(parts[part]) for part in models}


def stub_library(folder: str) -> None:
    """sd-scripts without what it imports for training."""
    sys.path.insert(0, folder)
    stubs = {
        "library.utils": ("setup_logging",),
        "library.device_utils": ("init_ipex", "clean_memory_on_device"),
        "library.custom_offloading_utils": (),
        "library.train_util": (),
    }
    for name, functions in stubs.items():
        module = types.ModuleType(name)
        for function in functions:
            setattr(module, function, lambda *_, **__: None)
        sys.modules[name] = module


def kohya_network(models: dict[str, nn.Module], **options: Any) -> tuple[Any, dict[str, nn.Module]]:
    """A LoRA of sd-scripts on copies of diffusers' models, whose classes have the names that it looks for."""
    from networks import lora

    parts = {part: copy.deepcopy(model) for part, model in models.items()}
    encoders = [model for part, model in parts.items() if part.startswith("text")]
    network = lora.LoRANetwork(encoders, parts["unet"], is_sdxl=len(encoders) > 1, **options)
    network.apply_to(encoders, parts["unet"], True, True)
    return network.eval(), parts


def kohya_cases(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    def case(which: int, uneven: bool, conv: int | None) -> float:
        xl = which == 1
        models = {"unet": unet(which), "text_encoder": encoder(2)}
        if xl:
            models["text_encoder_2"] = encoder(3)
        kernels = {"conv_lora_dim": conv, "conv_alpha": 1.0} if conv else {}
        network, _ = kohya_network(models, lora_dim=2, alpha=1.0, **kernels)
        state = randomised(network.state_dict())
        if uneven:
            for at, key in enumerate(key for key in state if key.endswith("alpha")):
                state[key] = torch.tensor(float(1 + at % 3))
        path = saved(state, folder)
        theirs = by_kohya(models, path) if uneven else by_diffusers(DiffusionXL if xl else Diffusion, models, path)
        convert(path.parent, folder / "out")
        return difference("kohya", models, theirs, folder / "out")

    yield "kohya-sd1-by-diffusers", lambda: case(0, False, None)
    yield "kohya-sd1-conv-by-diffusers", lambda: case(0, False, 2)
    yield "kohya-sd1-alphas-by-sd-scripts", lambda: case(0, True, 1)
    yield "kohya-sdxl-by-diffusers", lambda: case(1, False, 2)
    yield "kohya-sdxl-alphas-by-sd-scripts", lambda: case(1, True, 1)


def by_kohya(models: dict[str, nn.Module], path: Path) -> dict[str, torch.Tensor]:
    """What sd-scripts makes of a file (create_network_from_weights, which wants a file name for what it does beside)."""
    state = load_file(str(path))
    dims = {key.split(".")[0]: value.shape[0] for key, value in state.items() if "lora_down" in key}
    alphas = {key.split(".")[0]: value for key, value in state.items() if "alpha" in key}
    network, parts = kohya_network(models, modules_dim=dims, modules_alpha=alphas)
    network.load_state_dict(state, strict=True)
    return {part: output(model) for part, model in parts.items()}


def ldm_case(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    def case() -> float:
        models = {"unet": unet(1)}
        network, _ = kohya_network(models, lora_dim=1, alpha=0.5, conv_lora_dim=1, conv_alpha=0.5)
        state = randomised(network.state_dict())
        names = {old.replace(".", "_"): new.replace(".", "_") for new, old in sdxl_map(sys.argv[1]).items()}
        renamed = {}
        for key, value in state.items():
            module, _, leaf = key.removeprefix("lora_unet_").partition(".")
            start = next(old for old in sorted(names, key=len, reverse=True) if f"{module}_".startswith(old))
            renamed["lora_unet_" + f"{names[start]}{module[len(start) :]}".rstrip("_") + f".{leaf}"] = value
        path = saved(renamed, folder)
        theirs = by_diffusers(DiffusionXL, models, path)
        convert(path.parent, folder / "out")
        return difference("ldm", models, theirs, folder / "out")

    yield "kohya-sdxl-own-names-by-diffusers", case


def lycoris_cases(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    from lycoris import LycorisNetwork, create_lycoris

    def case(options: dict[str, Any]) -> float:
        models = {"unet": unet(0)}
        copied = copy.deepcopy(models["unet"])
        LycorisNetwork.apply_preset({
            "target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
            "lora_prefix": "lora_unet",
        })  # fmt: skip
        torch.manual_seed(4)
        network = create_lycoris(copied, 1.0, linear_alpha=2.0, conv_alpha=2.0, **options)
        network.apply_to()
        network.eval()
        torch.manual_seed(5)
        for name, value in network.named_parameters():
            value.data += torch.randn(value.shape) * (0.1 if "dora" in name else 0.2)
        path = saved({key: value.detach().contiguous() for key, value in network.state_dict().items()}, folder)
        theirs = {"unet": output(copied)}
        convert(path.parent, folder / "out")
        return difference("lycoris", models, theirs, folder / "out")

    for name, options in {
        "locon": {"algo": "locon", "linear_dim": 2, "conv_dim": 1},
        "dora": {"algo": "locon", "linear_dim": 2, "conv_dim": 1, "dora_wd": True},
        "loha": {"algo": "loha", "linear_dim": 1, "conv_dim": 1},
        "loha-cp": {"algo": "loha", "linear_dim": 1, "conv_dim": 2, "use_tucker": True},
        "lokr": {"algo": "lokr", "linear_dim": 2, "conv_dim": 2, "factor": -1},
        "lokr-factor": {"algo": "lokr", "linear_dim": 2, "conv_dim": 2, "factor": 2},
        "lokr-whole": {"algo": "lokr", "linear_dim": 10000, "conv_dim": 10000, "factor": -1},
    }.items():
        yield f"lycoris-{name}-by-lycoris", lambda options=options: case(options)


def flux(width: int) -> nn.Module:
    """Flux with one block of each kind. Only at its real width do diffusers' and sd-scripts' own code take a LoRA of it."""
    torch.manual_seed(5)
    heads = width // 128 or 1
    return diffusers.FluxTransformer2DModel(
        in_channels=8, num_layers=1, num_single_layers=1, attention_head_dim=width // heads, num_attention_heads=heads,
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True,
        axes_dims_rope=(16, 56, 56) if width // heads == 128 else (16, 24, 24),
    ).eval()  # fmt: skip


def own_flux() -> nn.Module:
    """The same in sd-scripts' code."""
    from library import flux_models

    return flux_models.Flux(flux_models.FluxParams(
        in_channels=8, vec_in_dim=16, context_in_dim=16, hidden_size=3072, mlp_ratio=4.0, num_heads=24, depth=1,
        depth_single_blocks=1, axes_dim=[16, 56, 56], theta=10_000, qkv_bias=True, guidance_embed=True,
    ))  # fmt: skip


def kohya_flux(**options: Any) -> State:
    """The tensors of a LoRA that sd-scripts trains of Flux, on a model without weights."""
    from networks import lora_flux

    with torch.device("meta"):
        model = own_flux()
    network = lora_flux.LoRANetwork([], model, lora_dim=4, alpha=2.0, **options)
    network.apply_to([], model, False, True)
    return network.state_dict()


def flux_cases(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    def case(*, renamed: bool) -> float:
        models = {"transformer": flux(3072)}
        state = randomised(kohya_flux(), 0.1)
        if renamed:  # as OneTrainer names them
            modules = [name for name, module in models["transformer"].named_modules() if isinstance(module, nn.Linear)]
            state = {}
            for name in modules:
                if ".attn." in name:  # diffusers takes no other of a block
                    out, columns = models["transformer"].get_submodule(name).weight.shape
                    flat = "lora_transformer_" + name.replace(".", "_")
                    state[f"{flat}.lora_down.weight"] = torch.randn(4, columns) * 0.1
                    state[f"{flat}.lora_up.weight"] = torch.randn(out, 4) * 0.1
                    state[f"{flat}.alpha"] = torch.tensor(2.0)
        path = saved(state, folder)
        theirs = by_diffusers(Flux, models, path)
        convert(path.parent, folder / "out")
        return difference("flux", models, theirs, folder / "out")

    def merged() -> float:
        """All layers, of which diffusers leaves out those outside of blocks: merged by sd-scripts, and then converted."""
        from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
        from networks import lora_flux

        original, model = own_flux(), flux(3072)
        with torch.no_grad():
            for value in original.parameters():
                value.copy_(torch.randn(value.shape) * 0.02)
        model.load_state_dict(convert_flux_transformer_checkpoint_to_diffusers(dict(original.state_dict())))
        state = randomised(kohya_flux(in_dims=[2] * 5), 0.02)
        path = saved(state, folder)
        downs = {key.split(".")[0]: value.shape[0] for key, value in state.items() if "lora_down" in key}
        alphas = {key.split(".")[0]: value for key, value in state.items() if "alpha" in key}
        network = lora_flux.LoRANetwork(
            [], original, modules_dim=downs, modules_alpha=alphas, module_class=lora_flux.LoRAInfModule
        )
        network.merge_to([], original, state)
        theirs = copy.deepcopy(model)
        theirs.load_state_dict(convert_flux_transformer_checkpoint_to_diffusers(dict(original.state_dict())))
        convert(path.parent, folder / "out")
        return difference("flux", {"transformer": model}, {"transformer": output(theirs)}, folder / "out")

    def split() -> float:
        """A LoRA of PEFT to sd-scripts' form, in which parts of a projection are one."""
        models = {"transformer": flux(3072)}
        theirs = {"transformer": output(trained(models["transformer"], folder / "peft", FLUX_TARGETS))}
        convert(folder / "peft", folder / "out", "--to", "kohya")
        found = by_diffusers(Flux, models, folder / "out" / "kohya_lora.safetensors")
        return compared("flux", models, theirs, found)

    yield "kohya-flux-by-diffusers", lambda: case(renamed=False)
    yield "kohya-flux-by-sd-scripts", merged
    yield "kohya-flux-names-of-diffusers-by-diffusers", lambda: case(renamed=True)
    yield "flux-to-kohya-by-diffusers", split


FLUX_TARGETS = (
    r".*(attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|to_add_out)|proj_mlp|ff\.net\.0\.proj|ff\.net\.2|norm1\.linear)"
)


def sd3_cases(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
    from library import sd3_models
    from networks import lora_sd3

    def both() -> tuple[Any, Callable[[], nn.Module]]:
        torch.manual_seed(6)
        theirs = sd3_models.create_sd3_mmdit(sd3_models.SD3Params(
            patch_size=2, depth=2, num_patches=256, pos_embed_max_size=16, adm_in_channels=16, qk_norm="rms",
            x_block_self_attn_layers=[0], context_embedder_in_features=16, context_embedder_out_features=128,
            model_type="small",
        ))  # fmt: skip
        with torch.no_grad():
            for value in theirs.parameters():
                value.copy_(torch.randn(value.shape) * 0.1)

        def converted() -> nn.Module:
            model = diffusers.SD3Transformer2DModel(
                sample_size=32, in_channels=16, num_layers=2, attention_head_dim=64, num_attention_heads=2,
                joint_attention_dim=16, caption_projection_dim=128, pooled_projection_dim=16, out_channels=16,
                pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
            )  # fmt: skip
            state = {key: value.clone() for key, value in theirs.state_dict().items()}
            model.load_state_dict(convert_sd3_transformer_checkpoint_to_diffusers(state))
            return model.eval()

        return theirs, converted

    def made(original: Any, *, merge: State | None = None) -> State:
        options: dict[str, Any] = {"lora_dim": 1, "alpha": 0.5, "emb_dims": [1] * 6}
        if merge is not None:
            downs = {key.split(".")[0]: value.shape[0] for key, value in merge.items() if "lora_down" in key}
            alphas = {key.split(".")[0]: value for key, value in merge.items() if "alpha" in key}
            options = {"modules_dim": downs, "modules_alpha": alphas, "module_class": lora_sd3.LoRAInfModule}
        network = lora_sd3.LoRANetwork([], original, **options)
        if merge is not None:
            network.merge_to([], original, merge)
            return merge
        network.apply_to([], copy.deepcopy(original), False, True)
        return network.state_dict()

    def case() -> float:
        original, converted = both()
        model, state = converted(), randomised(made(original))
        path = saved(state, folder)
        made(original, merge=state)
        theirs = {"transformer": output(converted())}
        convert(path.parent, folder / "out")
        return difference("sd3", {"transformer": model}, theirs, folder / "out")

    def back() -> float:
        original, converted = both()
        model = converted()
        theirs = {
            "transformer": output(trained(model, folder / "peft", r".*(to_q|to_k|to_add_out|norm1_context\.linear)"))
        }
        convert(folder / "peft", folder / "out", "--to", "kohya")
        made(original, merge=load_file(str(folder / "out" / "kohya_lora.safetensors")))
        return compared("sd3", {"transformer": model}, theirs, {"transformer": output(converted())})

    yield "kohya-sd3-by-sd-scripts", case
    yield "sd3-to-kohya-by-sd-scripts", back


def wan_cases(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    def case() -> float:
        torch.manual_seed(8)
        model = diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=16, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        ).eval()  # fmt: skip
        state: State = {}
        for block in range(2):
            for name, rows, columns in (
                *((f"{attn}_attn_{part}", 24, 24) for attn in ("self", "cross") for part in "qkvo"),
                ("ffn_0", 32, 24), ("ffn_2", 24, 32),
            ):  # fmt: skip
                start = f"lora_unet_blocks_{block}_{name}"
                state[f"{start}.lora_down.weight"] = torch.randn(2, columns) * 0.3
                state[f"{start}.lora_up.weight"] = torch.randn(rows, 2) * 0.3
                state[f"{start}.alpha"] = torch.tensor(2.0)
        path = saved(state, folder)
        theirs = by_diffusers(Wan, {"transformer": model}, path)
        convert(path.parent, folder / "out")
        return difference("wan", {"transformer": model}, theirs, folder / "out")

    yield "kohya-wan-by-diffusers", case


def trained(model: nn.Module, folder: Path, targets: str | list[str], **options: Any) -> nn.Module:
    """The model with a LoRA of PEFT with random weights, which is saved."""
    config = LoraConfig(r=2, lora_alpha=3, target_modules=targets, **options)
    made = get_peft_model(copy.deepcopy(model), config).eval()
    torch.manual_seed(9)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                value.copy_(torch.randn(value.shape) * 0.2)
            elif "lora_magnitude" in name:
                value.mul_(1 + torch.rand(value.shape) * 0.2)
    made.save_pretrained(str(folder))
    return made


UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "conv1", "conv_shortcut"]
TEXT_TARGETS = ["q_proj", "v_proj", "out_proj", "fc1"]


def diffusers_cases(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    from diffusers.utils import state_dict_utils

    def own(options: dict[str, Any], *, metadata: bool) -> float:
        """What diffusers' save_lora_weights writes, with the config in the header and without."""
        models = {"unet": unet(0), "text_encoder": encoder(2), "text_encoder_2": encoder(3)}
        if options.get("use_dora"):  # diffusers loads no magnitude of a text encoder
            models = {"unet": models["unet"]}
        layers: dict[str, State] = {part: {} for part in ("unet", "text_encoder", "text_encoder_2")}
        configs = {}
        for part, model in models.items():
            place = folder / "peft" / part
            made = trained(model, place, UNET_TARGETS if part == "unet" else TEXT_TARGETS, **options)
            layers[part] = {
                key.removeprefix("base_model.model."): value
                for key, value in load_file(str(place / "adapter_model.safetensors")).items()
            }
            configs[part] = made.peft_config["default"].to_dict()
            configs[part]["target_modules"] = sorted(configs[part]["target_modules"])
        (folder / "in").mkdir()
        DiffusionXL.save_lora_weights(
            folder / "in", unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"],
            text_encoder_2_lora_layers=layers["text_encoder_2"],
            **{f"{part}_lora_adapter_metadata": config for part, config in configs.items() if metadata},
        )  # fmt: skip
        theirs = by_diffusers(DiffusionXL, models, folder / "in" / "pytorch_lora_weights.safetensors")
        convert(folder / "in", folder / "out")
        return difference("diffusers", models, theirs, folder / "out")

    def old(mapping: dict[str, str], text: dict[str, str], *, processor: bool) -> float:
        """The forms of diffusers before PEFT, by its own tables of names."""
        models = {"unet": unet(0), "text_encoder": encoder(2)}
        state: State = {}
        for part, model in models.items():
            targets = ["to_q", "to_k", "to_v", "to_out.0"] if part == "unet" else TEXT_TARGETS[:-1]
            if part == "unet" and not processor:
                targets = UNET_TARGETS
            trained(model, folder / "peft" / part, targets)
            names = {new: name for name, new in (mapping if part == "unet" else text).items()}
            for key, value in load_file(str(folder / "peft" / part / "adapter_model.safetensors")).items():
                name = key.removeprefix("base_model.model.")
                new = next(new for new in names if new in name)
                name = name.replace(new, names[new])
                if processor and part == "unet":
                    name = re.sub(r"(attn[12])\.", r"\1.processor.", name)
                state[f"{part}.{name}"] = value
        path = saved(state, folder)
        theirs = by_diffusers(Diffusion, models, path)
        convert(path.parent, folder / "out")
        return difference("old", models, theirs, folder / "out")

    def alphas() -> float:
        """A Flux with an alpha for each layer."""
        models = {"transformer": flux(64)}
        trained(models["transformer"], folder / "peft", FLUX_TARGETS)
        state = {}
        for at, (key, value) in enumerate(load_file(str(folder / "peft" / "adapter_model.safetensors")).items()):
            name = key.removeprefix("base_model.model.")
            state[f"transformer.{name}"] = value
            if "lora_A" in name:
                state["transformer." + name.replace("lora_A.weight", "alpha")] = torch.tensor(float(1 + at % 4))
        path = saved(state, folder)
        theirs = by_diffusers(Flux, models, path)
        convert(path.parent, folder / "out")
        return difference("alphas", models, theirs, folder / "out")

    def export(form: str, part: str, **options: Any) -> float:
        models = {part: unet(1) if part == "unet" else encoder(3)}
        place = folder / part
        theirs = {
            part: output(trained(models[part], place, UNET_TARGETS if part == "unet" else TEXT_TARGETS, **options))
        }
        convert(place, folder / "out", "--to", form)
        file = next(path for path in (folder / "out").iterdir() if path.suffix == ".safetensors")
        found = by_kohya(models, file) if form == "kohya" and options else by_diffusers(DiffusionXL, models, file)
        return compared(form, models, theirs, found)

    utils = state_dict_utils
    plain_unet = {".lora.up": ".lora_B", ".lora.down": ".lora_A"}
    old_unet = {key: new for key, new in utils.UNET_TO_DIFFUSERS.items() if "_lora." in key}
    new_text = {key: new for key, new in utils.DIFFUSERS_TO_PEFT.items() if ".q_" not in key and "proj" not in key}
    old_text = {key: new for key, new in utils.DIFFUSERS_OLD_TO_PEFT.items() if "_lora." in key}
    uneven = {"rank_pattern": {"to_k": 1}, "alpha_pattern": {"to_v": 5}}
    yield "diffusers-by-diffusers", lambda: own({}, metadata=False)
    yield "diffusers-ranks-by-diffusers", lambda: own({"rank_pattern": {"to_k": 1, "q_proj": 3}}, metadata=False)
    yield "diffusers-metadata-by-diffusers", lambda: own(uneven, metadata=True)
    yield "diffusers-metadata-dora-by-diffusers", lambda: own({"use_dora": True}, metadata=True)
    yield "diffusers-dora-by-diffusers", lambda: own({"use_dora": True}, metadata=False)
    yield "diffusers-before-peft-by-diffusers", lambda: old(plain_unet, new_text, processor=False)
    yield "diffusers-processors-by-diffusers", lambda: old(old_unet, old_text, processor=True)
    yield "diffusers-flux-alphas-by-diffusers", alphas
    for part in ("unet", "text_encoder_2"):
        yield f"{part}-to-diffusers-by-diffusers", lambda part=part: export("diffusers", part)
        yield f"{part}-uneven-to-diffusers-by-diffusers", lambda part=part: export("diffusers", part, **uneven)
        yield f"{part}-to-kohya-by-diffusers", lambda part=part: export("kohya", part)
    yield "unet-dora-to-diffusers-by-diffusers", lambda: export("diffusers", "unet", use_dora=True)
    yield "unet-uneven-to-kohya-by-sd-scripts", lambda: export("kohya", "unet", **uneven)
    yield "unet-rslora-to-kohya-by-sd-scripts", lambda: export("kohya", "unet", use_rslora=True)


CASES = (kohya_cases, ldm_case, lycoris_cases, diffusers_cases, sd3_cases, wan_cases, flux_cases)


def main() -> int:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    scripts, *words = sys.argv[1:]
    record = "--record" in words
    words = [word for word in words if word != "--record"]
    expected: dict[str, Any] = {}
    stub_library(scripts)
    failed = 0
    for cases in CASES:
        with tempfile.TemporaryDirectory() as top:
            place = Path(top)
            for name, run in cases(place):
                if words and not any(word in name for word in words):
                    continue
                for old in place.iterdir():
                    shutil.rmtree(old)
                try:
                    error = run()
                except (Exception, SystemExit):
                    print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
                    failed += 1
                    continue
                failed += error > LIMIT
                original = next((place / "in").glob("*.safetensors"), None) if (place / "in").is_dir() else None
                if record and error <= LIMIT and original and original.stat().st_size < LARGEST:
                    expected[name] = probes()
                    DATA.mkdir(exist_ok=True)
                    shutil.copy(original, DATA / f"{name}.safetensors")
                print(f"{name}: {error:.1e}{' FAILED' if error > LIMIT else ''}", flush=True)
    if record:
        (DATA / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
