"""Tiny models of many architectures, the same in every environment: built from configs, with weights drawn by name.

Runs inside the environment of a PEFT release. No weight is read from a file: one and the same name and shape gives one
and the same tensor, whatever the release of transformers, so that outputs of two environments can be compared.
"""

from __future__ import annotations

import os
import zlib
from typing import Any, NamedTuple

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch
import transformers

torch.set_num_threads(1)

HEADS = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 16}
TOKENS = {"vocab_size": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**HEADS, **TOKENS, "max_position_embeddings": 32}
DECODER = {**TEXT, "intermediate_size": 24, "num_key_value_heads": 2}
ENCODER = {**TEXT, "intermediate_size": 24, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SEQ2SEQ = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "decoder_start_token_id": 1, **TOKENS,
}  # fmt: skip
SPOKEN = {"num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16, "suppress_tokens": None,
          "begin_suppress_tokens": None}  # fmt: skip
PATCHES = {"intermediate_size": 24, "image_size": 8, "patch_size": 4, "num_labels": 4}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 48,
      "tie_word_embeddings": False, "decoder_start_token_id": 0}  # fmt: skip
MIXED = {"num_local_experts": 3, "num_experts_per_tok": 2}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16, "tie_word_embeddings": True}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 48, "pad_token_id": 0}
OPT = {**TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16}
MPT = {"d_model": 16, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 32, "vocab_size": 48}
BLOOM = {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": 48, "pad_token_id": 0}
PHI3 = {"pad_token_id": 0, "num_key_value_heads": 4}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "vocab_size": 48, "max_position_embeddings": 32}
DEBERTA = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"], "num_labels": 3}


class Net(NamedTuple):
    """An architecture: its config, the class that is adapted, PEFT's task type, and the class that the Hub's files have."""

    config: str
    settings: dict[str, Any]
    model: str
    task: str | None = "CAUSAL_LM"
    saved: str | None = None


NETS = {
    "llama": Net("LlamaConfig", DECODER, "LlamaForCausalLM"),
    "llama-score": Net("LlamaConfig", DECODER, "LlamaForSequenceClassification", "SEQ_CLS", "LlamaForCausalLM"),
    "gpt2": Net("GPT2Config", GPT2, "GPT2LMHeadModel", saved="GPT2Model"),
    "gpt2-tokens": Net("GPT2Config", GPT2, "GPT2ForTokenClassification", "TOKEN_CLS", "GPT2LMHeadModel"),
    "opt": Net("OPTConfig", OPT, "OPTForCausalLM"),
    "bloom": Net("BloomConfig", BLOOM, "BloomForCausalLM", saved="BloomModel"),
    "gptneox": Net("GPTNeoXConfig", {**TEXT, "intermediate_size": 24, "rotary_pct": 0.5}, "GPTNeoXForCausalLM"),
    "mpt": Net("MptConfig", MPT, "MptForCausalLM"),
    "phi3": Net("Phi3Config", {**DECODER, **PHI3}, "Phi3ForCausalLM"),
    "gemma2": Net("Gemma2Config", {**DECODER, **GEMMA}, "Gemma2ForCausalLM"),
    "cohere": Net("CohereConfig", {**DECODER, "logit_scale": 1.0}, "CohereForCausalLM"),
    "granitemoe": Net("GraniteMoeConfig", {**DECODER, **MIXED}, "GraniteMoeForCausalLM"),
    "mixtral": Net("MixtralConfig", {**DECODER, **MIXED}, "MixtralForCausalLM"),
    "bert": Net("BertConfig", ENCODER, "BertForSequenceClassification", "SEQ_CLS", "BertForMaskedLM"),
    "deberta": Net("DebertaV2Config", {**ENCODER, **DEBERTA}, "DebertaV2ForSequenceClassification", "SEQ_CLS",
                   "DebertaV2Model"),
    "electra": Net("ElectraConfig", {**ENCODER, "embedding_size": 8}, "ElectraForTokenClassification", "TOKEN_CLS",
                   "ElectraForPreTraining"),
    "distilbert": Net("DistilBertConfig", DISTIL, "DistilBertForQuestionAnswering", "QUESTION_ANS",
                      "DistilBertForMaskedLM"),
    "roberta": Net("RobertaConfig", {**ENCODER, "pad_token_id": 1}, "RobertaModel", "FEATURE_EXTRACTION",
                   "RobertaForMaskedLM"),
    "clip-text": Net("CLIPTextConfig", {**TEXT, "intermediate_size": 24}, "CLIPTextModel", None),
    "t5": Net("T5Config", T5, "T5ForConditionalGeneration", "SEQ_2_SEQ_LM"),
    "mbart": Net("MBartConfig", {**SEQ2SEQ, "max_position_embeddings": 32}, "MBartForConditionalGeneration",
                 "SEQ_2_SEQ_LM"),
    "bart": Net("BartConfig", {**SEQ2SEQ, "max_position_embeddings": 32}, "BartForSequenceClassification", "SEQ_CLS",
                "BartModel"),
    "whisper": Net("WhisperConfig", {**SEQ2SEQ, **SPOKEN}, "WhisperForConditionalGeneration", None),
    "vit": Net("ViTConfig", {**HEADS, **PATCHES}, "ViTForImageClassification", None, "ViTModel"),
}  # fmt: skip
OUTPUTS = ("logits", "start_logits", "last_hidden_state")


def available(name: str) -> bool:
    """Whether this transformers has the architecture."""
    return hasattr(transformers, NETS[name].model)


def built(name: str, *, saved: bool = False) -> Any:
    """The model of an architecture; with `saved` of the class that the Hub's files have."""
    net = NETS[name]
    config = getattr(transformers, net.config)(**net.settings)
    config._attn_implementation = "eager"
    config._name_or_path = f"base/{name}"
    model = getattr(transformers, net.saved or net.model if saved else net.model)(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.copy_(_drawn(key, weight))
    return model.eval()


def _drawn(name: str, weight: torch.Tensor) -> torch.Tensor:
    """No bias is zero and no norm is one: where a trained one is lost, it must show."""
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if weight.dim() > 1:
        return noise * 0.25
    return noise * 0.1 + (0 if name.endswith("bias") else 1)


def save_base(name: str, folder: str) -> None:
    """Write the model as the Hub has it: config.json and model.safetensors."""
    built(name, saved=True).save_pretrained(folder, safe_serialization=True)


def _tokens(length: int, seed: int) -> torch.Tensor:
    return torch.randint(3, 48, (3, length), generator=torch.Generator().manual_seed(seed))


def inputs(name: str) -> dict[str, torch.Tensor]:
    """What the model is run with."""
    noise = torch.Generator().manual_seed(11)
    if name == "vit":
        return {"pixel_values": torch.randn(3, 3, 8, 8, generator=noise)}
    if name == "whisper":
        return {"input_features": torch.randn(3, 8, 16, generator=noise), "decoder_input_ids": _tokens(5, 8)}
    text = {"input_ids": _tokens(9, 7), "attention_mask": torch.ones(3, 9, dtype=torch.long)}
    if name == "bart":  # its classes read the last end-of-sequence token
        text["input_ids"][:, -1] = 2
    return {**text, "decoder_input_ids": _tokens(5, 8)} if NETS[name].task == "SEQ_2_SEQ_LM" else text


def output(out: Any) -> torch.Tensor:
    """The tensor that a model is asked for."""
    tensor: torch.Tensor = next(getattr(out, key) for key in OUTPUTS if getattr(out, key, None) is not None)
    return tensor


def run(model: Any, name: str) -> torch.Tensor:
    """The output that is compared."""
    with torch.no_grad():
        out = model(**inputs(name))
    return output(out).float()
