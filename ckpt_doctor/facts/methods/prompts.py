"""Prompt learning: virtual tokens before the input, in a tensor or two that belong to no layer."""

from __future__ import annotations

import re

from ...adapter.codes import METHOD_BY_RELEASE, MODULES_BESIDE_PROMPT, TASK_OF_PROMPT, UNSAVED_MODULE
from ...adapter.findings import THE_TRANSFORMERS
from ...adapter.runtimes import PEFT, between, since, upto
from ..config_keys import INIT
from ..embeddings import scales
from ..record import Method, Row
from ..subject import Subject
from ..tasks import HEADS, heads_of
from . import REVIEWED

ROWS_OF_TOKENS = "prompt_embeddings[num_virtual_tokens*num_transformer_submodules token_dim]"
DEMANDED = ("prompt_embeddings",)
KINDS: dict[str, tuple[type, ...]] = {
    "encoder_hidden_size": (int,), "num_attention_heads": (int,), "num_layers": (int,),
    "num_transformer_submodules": (int,), "num_virtual_tokens": (int,), "prompt_tuning_init_text": (str,),
    "token_dim": (int,), "tokenizer_kwargs": (dict,), "tokenizer_name_or_path": (str,),
}  # fmt: skip
BASE = "a size of the base model that the prompt is cut by, since 0.2 (peft_model.py: PeftModel.get_prompt)"
SIZES = dict.fromkeys(("num_attention_heads", "num_layers", "num_transformer_submodules", "token_dim"), BASE)
ENCODER = "of the encoder that only training has (model.py, where config.inference_mode is not set)"

LOSS = "of the loss (tuners/cpt/model.py: CPTEmbedding.calculate_loss)"
DELTA = "of a delta that is zero after a load (tuners/cpt/model.py: CPTEmbedding.get_projection)"


def is_of_another_task(subject: Subject) -> bool:
    """The task is none whose class puts a prompt before the input."""
    return subject.task not in ("CAUSAL_LM", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM", *HEADS)


def has_head(subject: Subject) -> bool:
    """The task is one of a model with a head that is trained as well."""
    return subject.task in HEADS


def has_head_of_tokens(subject: Subject) -> bool:
    """The task is to classify tokens, or to find an answer."""
    return subject.config.get("task_type") in ("TOKEN_CLS", "QUESTION_ANS")


def is_prefix_of_bloom(subject: Subject) -> bool:
    """A prefix in a BLOOM, whose keys and values lay otherwise in older releases of transformers."""
    return subject.model_type == "bloom"


PREFIXES_LOADED = frozenset({
    "bart", "bert", "big_bird", "biogpt", "blenderbot", "codegen", "cohere", "ctrl", "electra", "falcon", "gemma",
    "glm", "gpt2", "gpt_neo", "gpt_neox_japanese", "gptj", "granite", "jetmoe", "llama", "longt5", "m2m_100",
    "marian", "megatron-bert", "mistral", "olmo", "olmoe", "opt", "pegasus", "persimmon", "phi", "phi3", "plbart",
    "qwen2", "qwen2_moe", "roberta", "stablelm", "starcoder2", "switch_transformers", "t5", "trocr", "xlm-roberta",
})  # fmt: skip
"""The types of models in which a prefix was the same with transformers 4.38, 4.46 and 4.57, as far as these have them.
It was not in CamemBERT, GIT, GPT-BigCode, Nemotron, Qwen2-VL, RoFormer, UMT5 and X-MOD."""


def is_prefix_of_an_untried_model(subject: Subject) -> bool:
    """A prefix in a model whose caches nobody looked at."""
    return bool(subject.model_type) and subject.model_type not in PREFIXES_LOADED | {"bloom"}


def is_prefix_of_a_newer_gemma(subject: Subject) -> bool:
    """The name of the model, which nobody gave, is that of a Gemma whose layers differ in what they attend to."""
    name = str(subject.config.get("base_model_name_or_path"))[:200]
    return not subject.model_type and bool(re.search("(?i)gemma-?[234](?!b)", name))


def lacks_head(subject: Subject) -> bool:
    """The head that the task trains is not in the file, and the model has one that PEFT knows."""
    return bool(subject.model_type) and _lacks_head(subject, heads_of(subject.task, subject.model_type))


def may_lack_head(subject: Subject) -> bool:
    """The head that the task trains is not in the file, and nothing tells whether the model has one that PEFT knows."""
    return not lacks_head(subject) and _lacks_head(subject, HEADS.get(subject.task, ()))


def _lacks_head(subject: Subject, heads: tuple[str, ...]) -> bool:
    return bool(heads) and not any(f".{head}." in key for key in subject.tensors for head in heads)


def is_prefix_of_sequences(subject: Subject) -> bool:
    """A prefix in a classifier of sequences."""
    return subject.config.get("task_type") == "SEQ_CLS"


def is_before_scaled_words(subject: Subject) -> bool:
    """The model scales what its table of words gives, which the prompt is put beside."""
    return scales(subject.question.base.config if subject.question.base else {}) == "by release"


def is_prefix_of_two_stacks(subject: Subject) -> bool:
    """A prefix in an encoder and a decoder."""
    return subject.config.get("task_type") == "SEQ_2_SEQ_LM"


def is_not_causal(subject: Subject) -> bool:
    """The task is not CAUSAL_LM."""
    return subject.config.get("task_type") != "CAUSAL_LM"


def has_modules(subject: Subject) -> bool:
    """modules_to_save is set."""
    return bool(subject.config.get("modules_to_save"))


def starts_as_text(subject: Subject) -> bool:
    """The prompt was made of a text."""
    return subject.config.get("prompt_tuning_init") == "TEXT"


def of_another_model(subject: Subject) -> bool:
    """num_layers and token_dim are not those of the cartridge."""
    layers, width = (subject.value(key) for key in ("num_layers", "token_dim"))
    shape = subject.tensor_shapes.get("prompt_embeddings", ())
    return type(layers) is int and type(width) is int and shape[1:] != (2 * layers * width,)


TASKS = (
    Row(
        TASK_OF_PROMPT, is_of_another_task, "with this task_type the prompt is not put before the input",
        "peft_model.py: PeftModel", undecided=PEFT, keys=("task_type",), needs="the task that it was trained for",
    ),
    Row(
        TASK_OF_PROMPT, has_head, "PEFT 0.13 cannot load a prompt for a model with such a head",
        "peft_model.py: PeftModelForSequenceClassification.add_adapter", rejects=between("0.13", "0.13"),
        keys=("task_type",),
    ),
    Row(
        TASK_OF_PROMPT, has_head_of_tokens, "PEFT 0.16 cannot load a prompt for a model with such a head",
        "peft_model.py: PeftModelForTokenClassification", rejects=between("0.16", "0.16"), keys=("task_type",),
    ),
    Row(
        UNSAVED_MODULE, lacks_head, "the head that the task trains is not in the file",
        "utils/save_and_load.py: set_peft_model_state_dict", rejects=since("0.17"), undecided=upto("0.16"),
        needs="whether it was trained", keys=("task_type",),
    ),
    Row(
        UNSAVED_MODULE, may_lack_head, "the head that the task trains is not in the file, if the model has one",
        "utils/save_and_load.py: set_peft_model_state_dict", undecided=PEFT, keys=("task_type",),
        needs="the class that was adapted",
    ),
)  # fmt: skip
"""PeftModel itself does not put a prompt before the input, only its classes for tasks do. Loaded in 20 releases with
prompts, prefixes and P-tuning on BERT, RoBERTa, Qwen2, T5, GPT-2, OPT and Mistral."""

PREFIXES = (
    Row(
        METHOD_BY_RELEASE, is_prefix_of_an_untried_model, "a prefix in such a model may hang on transformers",
        "peft_model.py: PeftModel.get_prompt", undecided=PEFT, keys=("task_type",), needs=THE_TRANSFORMERS,
    ),
    Row(
        METHOD_BY_RELEASE, is_prefix_of_a_newer_gemma, "a prefix in a Gemma 2 or newer hangs on the release",
        "peft_model.py: PeftModel.get_prompt", undecided=PEFT, keys=("base_model_name_or_path",),
    ),
    Row(
        METHOD_BY_RELEASE, is_prefix_of_bloom, "a prefix in a BLOOM hangs on the release of transformers",
        "utils/constants.py: bloom_model_postprocess_past_key_value", undecided=since("0.10"), keys=("task_type",),
        needs=THE_TRANSFORMERS,
    ),
    Row(
        TASK_OF_PROMPT, is_prefix_of_sequences, "a prefix in a classifier hangs on transformers and on the model here",
        "peft_model.py: PeftModelForSequenceClassification._prefix_tuning_forward",
        undecided=between("0.15", "0.16"), keys=("task_type",), needs="a load in that release",
    ),
    Row(
        TASK_OF_PROMPT, is_prefix_of_two_stacks, "a prefix in two stacks hangs on the release of transformers",
        "peft_model.py: PeftModel.get_prompt", undecided=since("0.10"), keys=("task_type",),
        needs=THE_TRANSFORMERS,
    ),
)  # fmt: skip
"""How a prefix is handed to the model changed with the caches of transformers; in a Gemma 3 0.18.1 and 0.21.2 compute
otherwise with the same one (huggingface/peft#3201)."""

SCALED = Row(
    METHOD_BY_RELEASE, is_before_scaled_words, "whether the prompt is scaled as the words are hangs on transformers",
    "peft_model.py: PeftModelForCausalLM.forward", undecided=PEFT, keys=("task_type",), needs=THE_TRANSFORMERS,
)  # fmt: skip
"""An older transformers scales all that the model is given, a newer one in the table of words. Loaded with prompts and
P-tuning on PLBart and BioGPT in 6 releases."""

MODULES = Row(
    MODULES_BESIDE_PROMPT, has_modules, "modules_to_save goes with a prompt only from PEFT 0.17 on",
    "peft_model.py: PeftModel.load_adapter", undecided=upto("0.16"), keys=("modules_to_save",),
)  # fmt: skip
"""Releases that do not know the key overwrite the base weight instead. That is the same, but where the base model ties
the module to another."""

TEXT = Row(
    METHOD_BY_RELEASE, starts_as_text, "the prompt was made of a text, which PEFT 0.7 and older do at each load",
    "tuners/prompt_tuning/model.py: PromptEmbedding", undecided=upto("0.7"),
    keys=("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    needs="the tokenizer",
    read=True,
)  # fmt: skip

CARTRIDGE = Method(
    "CARTRIDGE", REVIEWED,
    shared=("prompt_embeddings[num_virtual_tokens *]",),
    demanded=DEMANDED,
    kinds=KINDS,
    alike=SIZES,
    rows=(
        *TASKS, MODULES,
        Row(
            METHOD_BY_RELEASE, of_another_model, "num_layers and token_dim are not those of the cartridge",
            "tuners/cartridge/model.py: CartridgeEncoder", undecided=PEFT, keys=("num_layers", "token_dim"),
        ),
    ),
)  # fmt: skip

CPT = Method(
    "CPT", REVIEWED,
    shared=("prompt_embeddings[#cpt_token_ids *]",),
    demanded=DEMANDED,
    nullable=(
        "opt_weighted_loss_type", "opt_loss_decay_factor", "opt_projection_epsilon", "opt_projection_format_epsilon",
    ),
    words={"opt_weighted_loss_type": ("decay",)},
    kinds={**KINDS, "cpt_mask": (list,), "cpt_token_ids": (list,), "cpt_tokens_type_mask": (list,)},
    harmless={
        "opt_loss_decay_factor": LOSS,
        "opt_weighted_loss_type": LOSS,
        "opt_projection_epsilon": DELTA,
        "opt_projection_format_epsilon": DELTA,
        "cpt_mask": LOSS,
        "cpt_tokens_type_mask": DELTA,
        "num_virtual_tokens": "the number of cpt_token_ids (tuners/cpt/config.py: CPTConfig.__post_init__)",
        "tokenizer_name_or_path": "of the tokens, which cpt_token_ids has (tuners/cpt/config.py: CPTConfig)",
    },
    alike=SIZES,
    tasks_checked=since("0.18"),
    rows=(
        Row(
            TASK_OF_PROMPT, is_not_causal, "CPT is for CAUSAL_LM only", "tuners/cpt/config.py: CPTConfig.__post_init__",
            rejects=since("0.18"), keys=("task_type",),
        ),
        MODULES,
    ),
)  # fmt: skip

MULTITASK_PROMPT_TUNING = Method(
    "MULTITASK_PROMPT_TUNING", REVIEWED,
    shared=(
        ROWS_OF_TOKENS + " prefix_task_cols[num_tasks num_virtual_tokens num_ranks]"
        " prefix_task_rows[num_tasks num_ranks token_dim]",
    ),
    demanded=DEMANDED,
    nullable=("prompt_tuning_init", "prompt_tuning_init_task"),
    words={"prompt_tuning_init": ("TEXT", "AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED")},
    kinds=KINDS,
    alike=SIZES,
    rows=(*TASKS, MODULES),
)  # fmt: skip

PREFIX_TUNING = Method(
    "PREFIX_TUNING", REVIEWED,
    shared=("prompt_embeddings[num_virtual_tokens num_layers*2*token_dim]",),
    demanded=DEMANDED,
    kinds={**KINDS, "init_weights": (bool, str)},
    harmless={"encoder_hidden_size": ENCODER, "init_weights": INIT, "prefix_projection": ENCODER},
    alike=SIZES,
    rows=(*TASKS, *PREFIXES, MODULES),
)  # fmt: skip

PROMPT_TUNING = Method(
    "PROMPT_TUNING", REVIEWED,
    shared=(ROWS_OF_TOKENS,),
    demanded=DEMANDED,
    nullable=("prompt_tuning_init",),
    words={"prompt_tuning_init": ("TEXT", "SAMPLE_VOCAB")},
    kinds=KINDS,
    harmless=dict.fromkeys(
        ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path"),
        "what training starts from (tuners/prompt_tuning/model.py: PromptEmbedding); of a text see the row",
    ),
    alike=SIZES,
    rows=(*TASKS, SCALED, MODULES, TEXT),
)  # fmt: skip

P_TUNING = Method(
    "P_TUNING", REVIEWED,
    shared=(ROWS_OF_TOKENS,),
    demanded=DEMANDED,
    nullable=("encoder_dropout", "encoder_num_layers", "encoder_reparameterization_type"),
    words={"encoder_reparameterization_type": ("LSTM",)},
    kinds=KINDS,
    harmless=dict.fromkeys(
        ("encoder_dropout", "encoder_hidden_size", "encoder_num_layers", "encoder_reparameterization_type"), ENCODER
    ),
    alike=SIZES,
    rows=(*TASKS, SCALED, MODULES),
)  # fmt: skip
