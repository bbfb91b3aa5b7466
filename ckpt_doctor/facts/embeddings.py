"""Embeddings of tokens and the heads that may be tied to them: how they are called, and what of them PEFT saves."""

from __future__ import annotations

HEAD = "lm_head"
"""What transformers mostly calls a head for language modelling."""

HEADS = (HEAD, "embed_out")
"""Heads that may share the weight of the embedding (transformers: modeling_gpt_neox.py: GPTNeoXForCausalLM)."""

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "shared")
"""Embeddings of tokens in transformers: modeling_llama.py: LlamaModel, modeling_gpt2.py: GPT2Model, modeling_bloom.py:
BloomModel, modeling_gpt_neox.py: GPTNeoXModel, modeling_t5.py: T5Model."""

POSITIONS = "embed_positions"
"""What transformers calls learned positions that have a class of their own, called with more than one argument or read
without a call (modeling_opt.py: OPTLearnedPositionalEmbedding, modeling_bart.py: BartLearnedPositionalEmbedding,
modeling_whisper.py: WhisperPositionalEmbedding)."""

USUAL = ("embed_tokens", HEAD)
"""Those that PEFT knows by name (utils/constants.py: EMBEDDING_LAYER_NAMES)."""

SAVED = r"embed|lm_head|\bshared\b|\bwte\b"
"""In the names of what PEFT saves with any adapter where it is targeted, or the vocabulary was resized
(utils/save_and_load.py: get_peft_model_state_dict, save_embedding_layers): all have a row for each token. Saved and
loaded on a Llama and a T5 with more tokens, beside LoRA and IA3 (0.21.2)."""

ADAPTED = ".base_layer.weight"
"""The end of the name of a weight that a layer adapts, from 0.7 on (tuners/tuners_utils.py: BaseTunerLayer)."""

SCALED_TABLE = r"(.+\.)?(?:embed_tokens\w*|shared)"
"""How a table of words that may scale is named."""

_ALWAYS = frozenset({"gemma3", "gemma3_text", "gemma3n", "gemma3n_text"})
_AS_THE_CONFIG_SAYS = {
    "bart": False, "bigbird_pegasus": True, "biogpt": True, "blenderbot": False, "m2m_100": True, "mbart": False,
    "nllb_moe": True, "pegasus_x": True, "plbart": True, "seamless_m4t": True, "seamless_m4t_v2": True, "trocr": False,
    "xglm": True,
}  # fmt: skip
"""The types of models whose tables of words are a module that scales (transformers 4.46 and 4.57: a ScaledWordEmbedding
in modeling_gemma3.py, modeling_bart.py and others), these with the default of scale_embedding. Of older transformers
such a model scales what the table gives."""


def scales(config: dict[str, object]) -> str:
    """How a model scales what its table of words gives, by its config: "always", "by release" of transformers, ""."""
    kind, decoder = str(config.get("model_type") or ""), config.get("decoder")
    if kind in _ALWAYS:
        return "always"
    if kind in _AS_THE_CONFIG_SAYS and config.get("scale_embedding", _AS_THE_CONFIG_SAYS[kind]) is True:
        return "by release"
    return scales(decoder) if isinstance(decoder, dict) and "decoder" not in decoder else ""
