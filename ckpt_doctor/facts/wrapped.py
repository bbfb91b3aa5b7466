"""Modules that a model asks for more than a call: what modules_to_save wraps them in has that from a release on."""

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
25 architectures no other module that has no others in it was read so."""
