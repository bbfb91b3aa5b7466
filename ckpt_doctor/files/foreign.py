"""What lies where no PEFT adapter does: the forms in which other tools and half-finished savings keep weights.

A form is told by the names of tensors, or by those of files and folders; the first that fits says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from ..adapter.codes import OTHER_FORMAT, OTHER_NAME, TRAINING_STATE, WHOLE_MODEL
from ..adapter.findings import Code


class Form(NamedTuple):
    """A form: its code, what it is, and what can be done, in which `{place}` stands for the folder. `pattern` matches
    the beginning of one of its names; `source` is where they are written; `tool` is the file of `conversions/` that
    reads it, if there is one.
    """

    code: Code
    what: str
    way: str
    pattern: re.Pattern[str]
    source: str
    tool: str = ""


def _form(code: Code, what: str, way: str, pattern: str, source: str, tool: str = "") -> Form:
    return Form(code, what, way, re.compile(pattern), source, tool)


MOST_TENSORS = 2_000
"""Names of one file that are looked at."""
LONGEST_NAME = 500
"""Characters of a name that is looked at: what a pattern takes grows with their square."""
DIFFUSERS = "load it with diffusers (pipe.load_lora_weights), or the program that it was made for"
SAVE_FROM_MODEL = "load it in the code that trained it, then save the adapter alone, with model.save_pretrained of PEFT"
# what two ways of telling tell, and what can be done
HUB = "an adapter of the library adapters (AdapterHub)", "load it with that library (model.load_adapter)"
GGUF = (
    "a file of llama.cpp: a model, or an adapter that was converted",
    "an adapter is served with `llama-server -m MODEL.gguf --lora FILE`",
)
MLX = "a LoRA of MLX", "serve it with mlx_lm (--adapter-path), or merge it with mlx_lm.fuse"
TORCHTUNE = (
    "a LoRA of torchtune",
    "save it again with torchtune's FullModelHFCheckpointer, which writes an adapter of PEFT",
)
EXPORT = (
    "export it with what trained it: Megatron-Bridge 0.4 or newer, "
    '`AutoBridge.from_hf_pretrained("MODEL").export_adapter_ckpt("CHECKPOINT", "OUT")`; ms-swift, '
    "`megatron export --adapter_load {place} --to_hf true --merge_lora false --save OUT`"
)
"""For Megatron's names (Megatron-Bridge models/conversion/auto_bridge.py: AutoBridge.export_adapter_ckpt, which writes
an adapter of PEFT; ms-swift docs, Megatron-SWIFT: LoRA Training)."""

SALVAGE = "salvage"
"""The file of `conversions/` that takes an adapter out of a model."""
WITH_ADAPTER = _form(
    WHOLE_MODEL, "a whole model with an adapter inside", SAVE_FROM_MODEL, "",
    "accelerate: Accelerator.save_state; transformers: Trainer._save of a model that is no PeftModel", SALVAGE,
)  # fmt: skip
FACTOR = re.compile(
    r"(.*)\.(?:(?:lora|lora_embedding|delora|gralora|hira)_[AB]|ia3_l|hada_w1_a|lokr_w1(?:_a)?|oft_[rR]|boft_R|hra_u"
    r"|ln_tuning_layers|(?:fourierft|waveft)_spectrum|miss_block|c3a_kernel)(?:$|\.)"
)
TABLES = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "shared")
"""Modules of which PEFT saves the base's weight with the adapter (utils/constants.py: EMBEDDING_LAYER_NAMES, and what
get_input_embeddings and get_output_embeddings of a model are): those of `facts/embeddings.py`."""

BY_TENSORS = (
    _form(
        OTHER_NAME, "an adapter of PEFT under another name", "", r"base_model\.model\..*(?:lora_|hada_|lokr_|ia3_)",
        "PEFT utils/save_and_load.py: get_peft_model_state_dict", "peft",
    ),
    _form(
        OTHER_FORMAT, "an adapter of kohya's sd-scripts or of LyCORIS, for image models", DIFFUSERS,
        r"(?:lora_(?:unet|te[0-9]?|transformer|prior)|lycoris)_", "sd-scripts networks/lora.py; lycoris/kohya.py",
        "kohya",
    ),
    _form(
        OTHER_FORMAT, "a LoRA in ComfyUI's layout, for image and video models", DIFFUSERS,
        r"diffusion_model\..*(?:lora|\.diff)", "ComfyUI comfy/lora.py: model_lora_keys_unet",
    ),
    _form(
        OTHER_FORMAT, "a LoRA of diffusers", DIFFUSERS,
        # transformer.h is GPT-2's, Falcon's and BLOOM's, transformer.encoder ChatGLM's, Wqkv and ffn.up_proj MPT's
        r"(?:transformer(?!\.(?:h|encoder|blocks\.[0-9]+\.(?:attn\.(?:Wqkv|out_proj)|ffn\.(?:up|down)_proj))\.)"
        r"|unet|text_encoder(?:_[0-9])?|prior|controlnet)\..*\.lora(?:_[AB]\.weight|\.(?:down|up)\.|_linear)"
        r"|.*\.processor\.\w*lora\w*\.|.*\bto_(?:q|k|v|out)_lora\.(?:down|up)\.|.*\.lora_[AB]_[0-9]+\.",
        "diffusers loaders/lora_base.py: LoraBaseMixin.write_lora_layers", "diffusers",
    ),
    _form(
        OTHER_FORMAT, "a LoRA of diffusers with an adapter's name in its keys",
        "take that name out of each key (lora_A.weight), and put transformer. before one that begins with the module; "
        "then load it with diffusers (pipe.load_lora_weights), which takes such names for Qwen-Image and Z-Image alone",
        r"(?:transformer\.)?(?:single_)?transformer_blocks\.[0-9]+\..*\.lora_[AB]\.(?!weight$)[^.]+\.weight$",
        "diffusers loaders/lora_conversion_utils.py: _convert_non_diffusers_qwen_lora_to_diffusers; "
        "modelscope/DiffSynth-Studio#886, Saquib764/omini-kontext#14",
    ),
    _form(
        OTHER_FORMAT, "a LoRA of mistral-finetune", "load it with mistral-inference (model.load_lora)",
        r"layers\.[0-9]+\.(?:attention\.w[qkvo]|feed_forward\.w[123])\.lora_[AB]\.weight",
        "mistral-finetune finetune/checkpointing.py; mistral-inference lora.py",
    ),
    _form(
        OTHER_FORMAT, *GGUF,
        r"[a-z0-9_.]+\.weight\.lora_[ab]$", "llama.cpp convert_lora_to_gguf.py", "gguf",
    ),
    _form(
        OTHER_FORMAT, *TORCHTUNE,
        r".*\.lora_[ab]\.weight$", "torchtune modules/peft/lora.py: LoRALinear", "torchtune",
    ),
    _form(
        OTHER_FORMAT, *MLX,
        r".*\.lora_[ab]$", "mlx-lm tuner/lora.py: LoRALinear", "mlx",
    ),
    _form(
        OTHER_FORMAT, "an adapter of Megatron (NeMo, Megatron-Bridge)",
        EXPORT,
        r".*\.adapter\.linear_(?:in|out)\.|.*(?:linear_qkv|linear_proj|linear_fc[12]).*(?:lora|adapter)",
        "Megatron-Bridge peft/lora.py: ParallelLinearAdapter",
    ),
    _form(
        OTHER_FORMAT, *HUB, r".*\.(?:loras\.[^.]+\.lora_[AB]|adapters\.[^.]+\.adapter_(?:down|up)\.)",
        "adapters methods/lora.py: LoRALayer; methods/modeling.py: Adapter",
    ),
    _form(
        OTHER_FORMAT, "an AdaLoRA or LoRA of loralib, whose config is in the code that made it",
        "load it there with strict=False: PEFT has no config of it", r".*\.(?:ranknum|lora_[ABE])$",
        "loralib adalora.py: SVDLinear; loralib layers.py: Linear", "loralib",
    ),
    _form(
        OTHER_FORMAT, "a prefix (P-Tuning v2) of ChatGLM's own code",
        "load it there, into model.transformer.prefix_encoder", r"(?:transformer\.)?prefix_encoder\.",
        "ChatGLM-6B ptuning/main.py",
    ),
    _form(
        WHOLE_MODEL, "a whole checkpoint of Stable Diffusion", "name the LoRA: this is a model",
        r"(?:cond_stage_model|first_stage_model|model\.diffusion_model)\.",
        "stable-diffusion ldm/models/diffusion/ddpm.py",
    ),
    _form(
        OTHER_FORMAT, "a LoRA with PEFT's factors and without PEFT's prefix (base_model.model.)",
        "name it adapter_model.safetensors (.bin), write its adapter_config.json (peft_type, r, lora_alpha, "
        "target_modules), and scan that with --base MODEL: its keys want what PEFT puts before the names of the model",
        r".*\.lora_[AB]\.(?:[^.]+\.)?weight$", "",
    ),
    _form(
        OTHER_FORMAT, "a LoRA whose names are those of no tool that is known",
        "ask whoever made it which program loads it", r".*lora_?(?:A|B|a|b|down|up)(?![a-z])", "",
    ),
)  # fmt: skip
"""By the name of a tensor."""


def of_tensors(names: Iterable[str]) -> Form | None:
    """The form that the names of tensors are of; None where they tell nothing."""
    some = [name for name in islice(names, MOST_TENSORS) if len(name) <= LONGEST_NAME]
    if _has_weights_of_layers(some):
        return WITH_ADAPTER
    return next((form for form in BY_TENSORS if any(map(form.pattern.match, some))), None)


def _has_weights_of_layers(names: list[str]) -> bool:
    """Whether a layer has its own weight beside factors, as in a model, of which an adapter has none."""
    there = set(names)
    layers = {found[1] for found in map(FACTOR.match, names) if found}
    return any(
        f"{layer}.weight" in there or f"{layer}.base_layer.weight" in there
        for layer in layers
        if layer.rpartition(".")[2] not in TABLES
    )


def of_another(names: Iterable[str]) -> Form | None:
    """The form of a tool that is known, and not PEFT."""
    form = of_tensors(names)
    return form if form is not None and form.code == OTHER_FORMAT and form.source else None


BY_FILES = (
    _form(
        TRAINING_STATE, "of a checkpoint of verl, which has the weights in shards",
        "merge them with `python -m verl.model_merger merge --backend fsdp --local_dir FOLDER --target_dir OUT`, which "
        "writes the adapter to OUT/lora_adapter",
        r"(?:model|optim|extra_state)_world_size_[0-9]+_rank_[0-9]+\.pt$",
        "verl utils/checkpoint/fsdp_checkpoint_manager.py; model_merger/base_model_merger.py: save_lora_adapter",
    ),
    _form(
        TRAINING_STATE, "of a ZeRO checkpoint of DeepSpeed, which has the trained weights in shards",
        # older scripts write a file, newer ones a folder of this name
        "gather them with `python zero_to_fp32.py . model.bin` where that script lies, which runs pickles, then type "
        "`ckpt-doctor fix model.bin OUT --adapter-config FILE`; or train with "
        "stage3_gather_16bit_weights_on_model_save and save again",
        r"global_step[0-9]+$|zero_to_fp32\.py$|(?:bf16_|fp16_)?zero_pp_rank_|mp_rank_[0-9]{2}_model_states\.pt$",
        "DeepSpeed runtime/engine.py: save_checkpoint, _get_zero_ckpt_name",
    ),
    _form(
        TRAINING_STATE, "of a Megatron checkpoint, which has the weights in shards",
        EXPORT,
        r"mp_rank_[0-9]{2}(?:_[0-9]{3}){0,2}$|model_optim_rng\.pt$|iter_[0-9]{7}$|latest_checkpointed_iteration\.txt$|common\.pt$",
        "Megatron-LM training/checkpointing.py; megatron/core/dist_checkpointing/strategies/common.py",
    ),
    _form(
        TRAINING_STATE, "of a distributed checkpoint of torch (FSDP), which has the weights in shards",
        "gather them with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {place} model.pt`, which "
        "runs the pickle in .metadata, then type `ckpt-doctor fix model.pt OUT --adapter-config FILE`; or train with "
        "fsdp_state_dict_type FULL_STATE_DICT and save again",
        r".*\.distcp$|pytorch_model_fsdp", "torch distributed/checkpoint/filesystem.py; accelerate utils/fsdp_utils.py",
    ),
    _form(
        TRAINING_STATE, "of a checkpoint of orbax (JAX)", "restore it with the trainer that wrote it, and export it",
        r"_CHECKPOINT_METADATA$|manifest\.ocdbt$|ocdbt\.process_", "orbax checkpoint/_src/metadata",
    ),
    _form(
        OTHER_FORMAT, *TORCHTUNE,
        r"adapter_[0-9]+\.pt$", "torchtune training/checkpointing/_checkpointer.py", "torchtune",
    ),
    _form(
        TRAINING_STATE, "of a recipe of torchtune, and its weights are in the folders of its epochs",
        "name the folder of an epoch", r"recipe_state\.pt$", "torchtune training/checkpointing/_checkpointer.py",
    ),
    _form(
        OTHER_FORMAT, *MLX,
        r"adapters\.(?:safetensors|npz)$|[0-9]{7}_adapters\.safetensors$", "mlx-lm tuner/trainer.py: train", "mlx",
    ),
    _form(
        OTHER_FORMAT, *GGUF, r".*\.gguf$|ggml-adapter-model\.bin$",
        "llama.cpp convert_lora_to_gguf.py, and before it convert-lora-to-ggml.py",
    ),
    _form(
        OTHER_FORMAT, *HUB,
        r"pytorch_adapter\.bin$|pytorch_model_head\.bin$", "adapters loading.py: AdapterLoader",
    ),
    _form(
        OTHER_FORMAT, "a LoRA of litgpt", "merge it into its model with `litgpt merge_lora FOLDER`",
        r".*\.pth\.lora$", "litgpt finetune/lora.py: save_lora_checkpoint",
    ),
    _form(
        OTHER_FORMAT, "a LoRA that was converted for TensorRT-LLM",
        "serve it there, or take the adapter that it was made from",
        r"model\.lora_(?:weights|config)\.npy$", "TensorRT-LLM examples/hf_lora_convert.py",
    ),
    _form(
        OTHER_FORMAT, "an archive of NeMo", "export it to Hugging Face's layout with NeMo", r".*\.nemo$",
        "NeMo core/connectors/save_restore_connector.py",
    ),
    _form(
        OTHER_FORMAT, "a LoRA of Keras", "load it with Keras (backbone.load_lora_weights)", r".*\.lora\.h5$",
        "keras-hub models/backbone.py: Backbone.save_lora_weights",
    ),
    _form(
        OTHER_FORMAT, "an IP-Adapter, for image models", "load it with diffusers (pipe.load_ip_adapter)",
        r"ip[-_]adapter.*\.(?:bin|safetensors)$", "diffusers loaders/ip_adapter.py",
    ),
    _form(
        OTHER_FORMAT, "a textual inversion, for image models", "load it with diffusers (pipe.load_textual_inversion)",
        r"learned_embeds", "diffusers loaders/textual_inversion.py: TEXT_INVERSION_NAME",
    ),
    _form(
        TRAINING_STATE, "of PyTorch Lightning or another trainer, or a model: its name does not tell",
        "load it in the code that trained it, then save the adapter with model.save_pretrained of PEFT",
        r".*\.ckpt$", "lightning pytorch/callbacks/model_checkpoint.py: ModelCheckpoint.FILE_EXTENSION",
    ),
    _form(
        WHOLE_MODEL, "a whole model of Mistral's", "name the folder of the adapter: this is a model",
        r"consolidated(?:\.[0-9]{2})?\.(?:safetensors|pth)$", "mistral-inference transformer.py: from_folder",
    ),
    _form(
        WHOLE_MODEL, "a whole model, and no adapter",
        "name the folder of the adapter: this is a model, or one that was merged",
        r"(?:pytorch_)?model(?:-[0-9]{5}-of-[0-9]{5})?\.(?:safetensors|bin)(?:\.index\.json)?$|"
        r"diffusion_pytorch_model|tf_model\.h5$|flax_model\.msgpack$|model_index\.json$",
        "transformers modeling_utils.py: save_pretrained",
    ),
)  # fmt: skip
"""By the name of a file or folder, where no tensor tells."""

TRAINER = _form(
    TRAINING_STATE, "of a Trainer or accelerate, whose weights are not beside it",
    "save the adapter with model.save_pretrained of PEFT, or fetch it from where it was trained",
    r"trainer_state\.json$|training_args\.bin$|optimizer\.(?:pt|bin)$|rng_state|random_states_[0-9]+\.pkl$",
    "transformers trainer.py: _save_checkpoint; accelerate checkpointing.py",
)  # fmt: skip
"""By the name of a file that may lie beside any adapter, too."""

NO_WEIGHTS = re.compile(
    r"optimizer|scheduler|rng_state|random_states|training_args|tokenizer|non_lora_|zero_pp_rank|mp_rank|scaler|trainer"
)
"""What files begin with that have no weights of a model, whatever they end with."""
