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
