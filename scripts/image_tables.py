"""Write the names of modules of image and video models, as diffusers, sd-scripts and the models' own code have them.

    python scripts/image_tables.py SD_SCRIPTS [--write]

It needs diffusers, transformers before 5 (which name CLIP's layers as the files do), einops and a checkout of
kohya-ss/sd-scripts. The models are made without weights. Which rows of a weight there are which here is read off what
diffusers' own converters of whole models do to numbered rows.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import types
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils as single
from torch import nn

PATH = Path(__file__).parent.parent / "ckpt_doctor" / "conversions" / "image_modules.json"
BLOCKS = (
    "attentions", "block", "blocks", "caption_projection", "context_refiner", "double_blocks",
    "double_stream_blocks", "down_blocks", "downsamplers", "experts", "joint_blocks", "joint_transformer_blocks",
    "layers", "noise_refiner", "refiner_blocks", "resnets", "single_blocks", "single_stream_blocks",
    "single_transformer_blocks", "transformer_blocks", "up_blocks", "upsamplers",
)  # fmt: skip
"""What has modules that differ in their number only; a number behind another name says which module it is."""
SAME = ("transformer_blocks",)
"""Those whose numbers are the same in SDXL's own UNet and in diffusers'."""
CLIP = {"vocab_size": 8, "num_hidden_layers": 2}
UNETS: list[dict[str, Any]] = [
    {"cross_attention_dim": 768},
    {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
]  # fmt: skip
"""Stable Diffusion 1 and 2, and XL, as their config.json on the Hub has it."""
TRANSFORMERS: dict[str, list[dict[str, Any]]] = {
    "FluxTransformer2DModel": [{"guidance_embeds": True}],
    "SD3Transformer2DModel": [
        {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536},
        {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
         "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"},
    ],
    "WanTransformer3DModel": [{"image_dim": 1280, "added_kv_proj_dim": 5120}],
    **{
        name: [{}]
        for name in (
            "AuraFlowTransformer2DModel", "CogVideoXTransformer3DModel", "CogView4Transformer2DModel",
            "Flux2Transformer2DModel", "HunyuanVideoTransformer3DModel",
            "LTXVideoTransformer3DModel", "Lumina2Transformer2DModel", "MochiTransformer3DModel",
            "QwenImageTransformer2DModel", "SanaTransformer2DModel", "ZImageTransformer2DModel",
        )
    },
}  # fmt: skip
WAN = [
    *(f"blocks.0.{attn}.{part}" for attn in ("self_attn", "cross_attn") for part in "qkvo"),
    *(f"blocks.0.cross_attn.{part}_img" for part in "kv"),
    *("blocks.0.ffn.0", "blocks.0.ffn.2", "time_embedding.0", "time_embedding.2", "time_projection.1"),
    *("text_embedding.0", "text_embedding.2", "img_emb.proj.1", "img_emb.proj.3", "head.head", "patch_embedding"),
]
"""Modules of Wan's own code (Wan-Video/Wan2.1 wan/modules/model.py: WanModel), which musubi-tuner trains."""


def checked(holds: bool, what: object) -> None:
    """End where what the table is made by does not hold."""
    if not holds:
        raise SystemExit(f"{what} is not as the script takes it to be")


def adaptable(model: nn.Module) -> list[str]:
    """The modules that LoRA adapts in these tools."""
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def template(name: str, blocks: tuple[str, ...] = BLOCKS) -> str:
    """A name with # for the numbers of blocks."""
    return re.sub(rf"(?<![^.])({'|'.join(blocks)})\.\d+(?=\.|$)", r"\1.#", name)


def templates(names: Iterable[str]) -> list[str]:
    return sorted({template(name) for name in names})


def on_meta(make: Any, configs: list[dict[str, Any]]) -> list[nn.Module]:
    with torch.device("meta"):
        return [make(**config) for config in configs]


def numbered_rows(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of one column, in which each row of every tensor has a number of its own."""
    at, state = 0, {}
    for key, value in model.state_dict().items():
        rows = value.shape[0] if value.ndim else 1
        state[key] = torch.arange(at, at + rows).reshape(rows, *(1,) * (value.ndim - 1)) if value.ndim else value
        at += rows
    return state


def followed(model: nn.Module, convert: Any) -> dict[str, dict[str, list[list[int]]]]:
    """Module → module of diffusers → which rows of the one it has, as ranges, in parts of a common size."""
    state = numbered_rows(model)
    owner: dict[int, tuple[str, int]] = {}
    sizes: dict[str, int] = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if leaf == "weight":
            sizes[module] = value.shape[0]
            owner.update((int(number), (module, row)) for row, number in enumerate(value.flatten()))
    raw: dict[str, dict[str, list[list[int]]]] = {}
    for key, value in convert(dict(state)).items():
        module, _, leaf = key.rpartition(".")
        if leaf != "weight":
            continue
        for number in value.flatten().tolist():
            if number not in owner:  # a norm, whose weight has another name there
                break
            source, row = owner[number]
            ranges = raw.setdefault(source, {}).setdefault(module, [])
            if ranges and ranges[-1][1] == row:
                ranges[-1][1] = row + 1
            else:
                ranges.append([row, row + 1])
    result = {}
    for source, parts in raw.items():
        unit = math.gcd(*(edge for ranges in parts.values() for edges in ranges for edge in edges))
        scaled = {name: [[a // unit, b // unit] for a, b in ranges] for name, ranges in parts.items()}
        checked(sum(b - a for ranges in scaled.values() for a, b in ranges) * unit == sizes[source], source)
        result[source] = scaled
    return result


def layout(
    model: nn.Module, convert: Any, targets: list[str], blocks: tuple[str, ...] = BLOCKS, *, sized: bool = True
) -> dict[str, Any]:
    """Template → template of diffusers, or the parts of it. With `sized` by the rows that the weight has per column,
    where these follow from the code and not from the size of the model: layers of blocks. Other models have modules of
    the same names, and layers of other sizes (Flux 2).
    """
    wanted, known = set(adaptable(model)), set(targets)
    variants: dict[str, dict[str, set[str]]] = {}
    for source, parts in followed(model, convert).items():
        if source not in wanted or not parts.keys() <= known:
            continue
        named = {template(name, blocks): ranges for name, ranges in parts.items()}
        plain = list(parts.values()) == [[[0, 1]]]
        entry = next(iter(named)) if plain else named
        ratio = str(Fraction(*model.get_submodule(source).weight.shape[:2]))
        variants.setdefault(template(source, blocks), {}).setdefault(json.dumps(entry), set()).add(ratio)
    table: dict[str, Any] = {}
    for name, found in sorted(variants.items()):
        ways = {ratio: json.loads(entry) for entry, ratios in found.items() for ratio in sorted(ratios)}
        if len(found) > 1 or (sized and "#" in name):
            checked(len(ways) == sum(map(len, found.values())), (name, found))
            table[name] = {"by_ratio": ways}
        else:
            table[name] = json.loads(next(iter(found)))
    missing = {template(name, blocks) for name in wanted} - table.keys()
    print(f"  {type(model).__name__}: {len(table)} names, {sorted(missing)} without a counterpart", file=sys.stderr)
    return table


def by_ratio(entry: Any) -> dict[str, Any]:
    """What a name stands for, by rows per column, or "" where that tells nothing."""
    found: dict[str, Any] = entry["by_ratio"] if isinstance(entry, dict) and "by_ratio" in entry else {"": entry}
    return found


def sd_scripts(folder: str) -> dict[str, nn.Module]:
    """The models that sd-scripts trains, without weights."""
    sys.path.insert(0, folder)
    utils = types.ModuleType("library.utils")  # it wants torchvision, of which no model has need
    utils.setup_logging = lambda *_, **__: None  # type: ignore[attr-defined]
    sys.modules["library.utils"] = utils
    device = types.ModuleType("library.device_utils")
    device.init_ipex = device.clean_memory_on_device = lambda *_, **__: None  # type: ignore[attr-defined]
    sys.modules["library.device_utils"] = device
    offloading = types.ModuleType("library.custom_offloading_utils")
    sys.modules["library.custom_offloading_utils"] = offloading
    from library import flux_models, sd3_models, sdxl_original_unet

    with torch.device("meta"):
        return {
            "flux": flux_models.Flux(replace(flux_models.configs["dev"].params, depth=2, depth_single_blocks=2)),
            "sd3": sd3_models.create_sd3_mmdit(sd3_models.SD3Params(
                patch_size=2, depth=24, num_patches=36864, pos_embed_max_size=192, adm_in_channels=2048,
                qk_norm=None, x_block_self_attn_layers=[], context_embedder_in_features=4096,
                context_embedder_out_features=1536, model_type="sd3-medium",
            )),
            "sd35": sd3_models.create_sd3_mmdit(sd3_models.SD3Params(
                patch_size=2, depth=24, num_patches=147456, pos_embed_max_size=384, adm_in_channels=2048,
                qk_norm="rms", x_block_self_attn_layers=list(range(13)), context_embedder_in_features=4096,
                context_embedder_out_features=1536, model_type="sd3-5-medium",
            )),
            "sdxl": sdxl_original_unet.SdxlUNet2DConditionModel(),
        }  # fmt: skip


def sdxl_space(folder: str) -> dict[str, Any]:
    """The conversion of SDXL's keys in sd-scripts, without what that file imports."""
    text = (Path(folder) / "library" / "sdxl_model_util.py").read_text()
    found = [
        re.search(rf"^def {name}\(.*?(?=^def )", text, re.MULTILINE | re.DOTALL)
        for name in ("make_unet_conversion_map", "convert_unet_state_dict", "convert_sdxl_unet_state_dict_to_diffusers")
    ]
    space: dict[str, Any] = {}
    exec("\n".join(match[0] for match in found if match), space)  # noqa: S102
    return space


def sdxl_map(folder: str) -> dict[str, str]:
    """How names begin in SDXL's own UNet → in diffusers'."""
    return dict(sdxl_space(folder)["make_unet_conversion_map"]())


def tables(folder: str) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = {}
    names: dict[str, list[str]] = {}
    made: list[tuple[str, str, list[nn.Module]]] = [
        ("UNet2DConditionModel", "unet", on_meta(diffusers.UNet2DConditionModel, UNETS)),
        *(
            (name, "transformer", on_meta(getattr(diffusers, name), configs))
            for name, configs in TRANSFORMERS.items()
        ),
        (
            "CLIPTextModelWithProjection", "text_encoder",
            on_meta(transformers.CLIPTextModelWithProjection, [{"config": transformers.CLIPTextConfig(**CLIP)}]),
        ),
    ]  # fmt: skip
    for name, part, instances in made:
        names[name] = sorted({module for model in instances for module in adaptable(model)})
        models[name] = {"part": part, "library": type(instances[0]).__module__, "modules": templates(names[name])}
    theirs = sd_scripts(folder)
    sd3 = layout(theirs["sd3"], single.convert_sd3_transformer_checkpoint_to_diffusers, names["SD3Transformer2DModel"])
    sd35 = layout(
        theirs["sd35"], single.convert_sd3_transformer_checkpoint_to_diffusers, names["SD3Transformer2DModel"]
    )
    for name, entry in sd3.items():
        ways, others = map(by_ratio, (entry, sd35[name]))
        checked(ways.items() <= others.items(), f"{name} of SD3, which is that of SD3.5")
    wan = single.convert_wan_transformer_to_diffusers({f"{name}.weight": name for name in WAN})
    wan_names = {template(old): template(new.removesuffix(".weight")) for new, old in wan.items()}
    checked(set(wan_names.values()) <= set(models["WanTransformer3DModel"]["modules"]), wan_names)
    layouts = {
        "SDXL": {
            "model": "UNet2DConditionModel",
            "source": "sd-scripts library/sdxl_model_util.py: make_unet_conversion_map",
            "modules": layout(
                theirs["sdxl"],
                sdxl_space(folder)["convert_sdxl_unet_state_dict_to_diffusers"],
                names["UNet2DConditionModel"],
                SAME,
                sized=False,
            ),
        },
        "Flux": {
            "model": "FluxTransformer2DModel",
            "source": "diffusers loaders/single_file_utils.py: convert_flux_transformer_checkpoint_to_diffusers",
            "modules": layout(
                theirs["flux"], single.convert_flux_transformer_checkpoint_to_diffusers, names["FluxTransformer2DModel"]
            ),
        },
        "SD3": {
            "model": "SD3Transformer2DModel",
            "source": "diffusers loaders/single_file_utils.py: convert_sd3_transformer_checkpoint_to_diffusers",
            "modules": sd35,
        },
        "Wan": {
            "model": "WanTransformer3DModel",
            "source": "diffusers loaders/single_file_utils.py: convert_wan_transformer_to_diffusers",
            "modules": dict(sorted(wan_names.items())),
        },
    }
    return {"models": models, "layouts": layouts}


def main() -> None:
    logging.disable(logging.WARNING)
    folder, *flags = sys.argv[1:]
    text = json.dumps(tables(folder), indent=1) + "\n"
    # one line a module, its parts included
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)
    text = re.sub(
        r"\[\s+(\[\d+, \d+\](?:,\s+\[\d+, \d+\])*)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text
    )
    if "--write" in flags:
        PATH.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
