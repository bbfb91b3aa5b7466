"""Modules that a model asks for more than a call: what PEFT puts in their place has that from a release on, or not."""

from __future__ import annotations

from typing import NamedTuple

from ..adapter.runtimes import Ids, since


class Read(NamedTuple):
    """A module by the end of its name, an attribute that the model reads of it, the releases whose wrapper has that
    attribute (utils/other.py: ModulesToSaveWrapper), and where transformers reads it. `types` are those of the models
    that do, where others have modules of that name; else the name tells.
    """

    module: str
    attribute: str
    had: Ids
    source: str
    types: tuple[str, ...] = ()


WEIGHT, ALL = since("0.8"), since("0.14")
"""The wrapper has `weight`; it has what the module has."""

READ = (
    Read("DenseReluDense.wo", "weight", WEIGHT, "modeling_t5.py: T5DenseActDense.forward"),
    Read("encoder.rel_embeddings", "weight", WEIGHT, "modeling_deberta_v2.py: DebertaV2Encoder.get_rel_embedding"),
    Read("embeddings.patch_embedding", "weight", WEIGHT, "modeling_clip.py: CLIPVisionEmbeddings.forward"),
    Read("patch_embeddings.projection", "weight", WEIGHT, "modeling_vit.py: ViTModel.forward", ("vit",)),
    Read("encoder.embed_positions", "weight", WEIGHT, "modeling_whisper.py: WhisperEncoder.forward", ("whisper",)),
    Read("encoder.conv1", "stride", ALL, "modeling_whisper.py: WhisperEncoder.forward", ("whisper",)),
    Read("encoder.conv2", "stride", ALL, "modeling_whisper.py: WhisperEncoder.forward", ("whisper",)),
)
"""Saved whole and run on T5, UMT5, DeBERTa, CLIP, ViT and Whisper in 0.6.2, 0.8.2, 0.9.0, 0.13.2, 0.14.0 and 0.21.2; of
25 architectures no other module that has no others in it was read so, but the out_proj of a MultiheadAttention."""

MAMBAS = {
    "falcon_h1": since("0.16"), "falcon_mamba": since("0.16"), "mamba": since("0.16"), "mamba2": since("0.16"),
    "nemotron_h": since("0.20"),
}  # fmt: skip
"""The types of models with state spaces, and the releases that refuse LoRA on what their fast kernels read as a mere
weight (tuners/tuners_utils.py: _check_lora_target_modules_mamba; read in 0.15.2, 0.16.0, 0.17.1, 0.18.1, 0.19.1 and
0.20.0)."""

READ_BY_KERNELS = r"(.+\.)?(?:out_proj|conv1d)"
"""What they read so (transformers: modeling_mamba.py: MambaMixer.cuda_kernels_forward)."""

IN_MAMBA = r".*\bbackbone\.layers\.\d+\.mixer\.\w+|.*\.layers\.\d+\.mamba\.\w+"
"""How the layers of such models are named, where nothing tells the type."""

BIAS_READ_OUTSIDE = {
    "conditional_detr": "k_linear", "dab_detr": "k_linear", "detr": "k_linear", "graphormer": "out_proj",
    "wavlm": "q_proj k_proj v_proj out_proj",
}  # fmt: skip
"""The types of models whose modules read the bias of a layer in them, and these layers (transformers 4.38, 4.46 and
4.57: modeling_wavlm.py: WavLMAttention and others)."""

READ_BY_TORCH = r"(?:.+\.)?linear[12]|(?:.*\.)?wavlm\..+_proj"
"""Layers of which torch's nn.TransformerEncoderLayer reads the bias, and WavLM's, where nothing tells the type."""
