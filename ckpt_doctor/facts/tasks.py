"""What a task_type says of the model: PEFT's classes for tasks, and how transformers names classes and their heads."""

from __future__ import annotations

import re
from functools import cache

CLASSIFIER_HEADS = ("classifier", "score")
"""What the head of a classifier may be called; PEFT 0.12 and newer write both, and a model has one."""

HEADS = {"SEQ_CLS": CLASSIFIER_HEADS, "TOKEN_CLS": CLASSIFIER_HEADS, "QUESTION_ANS": ("qa_outputs",)}
"""The heads that are trained and saved whole for a task, whatever modules_to_save says (peft_model.py:
PeftModelForSequenceClassification, PeftModelForTokenClassification, PeftModelForQuestionAnswering)."""

OTHER_HEADS = {
    "SEQ_CLS": frozenset({
        "bart", "bigbird_pegasus", "flaubert", "led", "mbart", "mt5", "mvp", "perceiver", "plbart", "t5", "umt5", "xlm",
        "xlnet",
    }),
    "QUESTION_ANS": frozenset({"big_bird", "blip", "lxmert", "modernbert", "splinter", "tapas", "vilt", "visual_bert"}),
}  # fmt: skip
"""Task → the types of models whose class for it calls its head otherwise, which PEFT then neither trains nor saves
(transformers 4.38, 4.46 and 4.57: modeling_bart.py and others; loaded on XLNet in 6 releases)."""

CALLED_OTHERWISE = {
    "SEQ_CLS": r"decoder|\btransformer\.(?:layer\.\d+\.(?:ff|rel_attn)|attentions|ffns)\b|^perceiver\.",
    "QUESTION_ANS": r"decoder|^(?:bert|lxmert|splinter|tapas|vilt|visual_bert)\.|\blayers\.\d+\.(?:attn|mlp)\.W",
}
"""How modules of such models are named; where there are two stacks, the head of a model that nobody knows may be
called otherwise as well."""

CLASSES = {
    "CAUSAL_LM": ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"),
    "SEQ_2_SEQ_LM": ("ForConditionalGeneration",),
    "SEQ_CLS": ("ForSequenceClassification",),
    "TOKEN_CLS": ("ForTokenClassification",),
    "QUESTION_ANS": ("ForQuestionAnswering",),
}
"""How transformers names the classes with a head that a task type is for."""

POOLER = "pooler"
"""What a model without a head makes anew where the files are of a class with one, which mostly has none
(transformers: modeling_roberta.py: RobertaModel, RobertaForMaskedLM)."""

WITH_BIAS = ("classifier", "qa_outputs")
"""Heads that have a bias in every class of transformers."""

OTHER_INPUT = frozenset({
    "autoformer", "bark", "beit", "bit", "chinese_clip_vision_model", "clip_vision_model", "conditional_detr",
    "cvt", "dab-detr", "dac", "data2vec-audio", "data2vec-vision", "decision_transformer", "deformable_detr",
    "depth_anything", "depth_pro", "deta", "detr", "dinat", "dinov3_convnext", "donut-swin", "efficientformer",
    "efficientnet", "encodec", "focalnet", "glpn", "hgnet_v2", "hiera", "hubert", "informer", "levit",
    "mask2former", "maskformer", "maskformer-swin", "mctct", "mgp-str", "mimi", "mlcd", "mobilenet_v1",
    "mobilenet_v2", "mobilevit", "mobilevitv2", "nat", "oneformer", "patchtsmixer", "patchtst", "pix2struct",
    "poolformer", "prompt_depth_anything", "pvt", "pvt_v2", "regnet", "resnet", "segformer", "seggpt", "sew",
    "sew-d", "siglip2_vision_model", "speech2text", "speech_to_text", "superpoint", "swiftformer", "swin",
    "swin2sr", "swinv2", "table-transformer", "textnet", "time_series_transformer", "timesfm", "timesformer",
    "trajectory_transformer", "tvlt", "unispeech", "unispeech-sat", "univnet", "upernet", "van", "vit_hybrid",
    "vitdet", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm", "whisper", "xcodec", "zoedepth",
})  # fmt: skip
"""Types of models of which no class, but for Whisper's that has a decoder alone, takes input_ids or any argument
(signatures of transformers 4.57); `speech2text` is what classes of speech_to_text are called."""

OTHER_INPUT_ONCE = frozenset({
    "ast", "audio-spectrogram-transformer", "convnext", "convnextv2", "deit", "dinov2", "dpt",
    "siglip_vision_model", "videomae", "vit", "vit_mae", "vit_msn", "vivit", "yolos",
})  # fmt: skip
"""The same of transformers 4.46 and older, whose classes take any argument in 4.57; `ast` is what classes of
audio-spectrogram-transformer are called."""

NO_EMBEDDINGS = frozenset({
    "altclip", "bark_causal", "bark_coarse", "bark_fine", "bark_semantic", "chinese_clip", "clap", "clip",
    "clip_text_model", "clipseg", "clipseg_text_model", "fastspeech2_conformer", "flava", "flava_text_model",
    "groupvit", "groupvit_text_model", "metaclip_2", "metaclip_2_text_model", "owlv2", "owlv2_text_model",
    "owlvit", "owlvit_text_model", "perceiver", "rag", "siglip", "siglip2", "siglip_text_model", "speecht5",
    "tvp", "vision-text-dual-encoder", "vits", "xclip", "xclip_text_model",
})  # fmt: skip
"""Types of models of which the classes that take input_ids take no inputs_embeds, nor any argument (signatures of
transformers 4.38, 4.46 and 4.57), or look it up and fail: SiglipTextModel in 4.57."""

NO_EMBEDDINGS_ONCE = frozenset({
    "blip", "blip-2", "instructblip", "instructblip_qformer", "instructblipvideo",
})  # fmt: skip
"""The same of transformers 4.46 and older."""

OF_CONV1D = frozenset({"clvp", "clvp_decoder", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"})
"""Types of models whose linear layers are of transformers' Conv1D (4.38, 4.46 and 4.57: pytorch_utils.py: Conv1D)."""

GENERATING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
"""Tasks whose class asks the model for prepare_inputs_for_generation (peft_model.py: PeftModelForCausalLM.__init__),
which all of transformers' models have up to 4.49, and from 4.50 on those that generate."""


def is_one_of(kinds: frozenset[str], model_type: str, adapted_class: str) -> bool:
    """Whether a model is of one of these types, by its type or its class, as far as those are known."""
    return model_type in kinds or (adapted_class != "" and _squeezed(_model(adapted_class)) in _names(kinds))


@cache
def _names(kinds: frozenset[str]) -> frozenset[str]:
    return frozenset(map(_squeezed, kinds))


def _squeezed(name: str) -> str:
    """The name of a type or a class of models as both have it: `clip_vision_model`, CLIPVision, ConvNextBackbone."""
    return re.sub("[-_]|(?:model|backbone)(?:withprojection)?$", "", name.lower())


def saved_whole(config: dict[str, object]) -> list[str]:
    """The names in modules_to_save: of modules that are trained and saved whole."""
    names = config.get("modules_to_save")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def of_one_model(one: str, other: str) -> bool:
    """Whether two classes of transformers are of one model, by their names."""
    return _model(one) == _model(other)


def _model(name: str) -> str:
    return re.split(r"(?<=.)(?:For[A-Z]|(?:With|Double)?(?:LM)?Heads?|(?:MT)?Model$)", name)[0]


def has_head(name: str) -> bool:
    """Whether a class of transformers is a model with a head, by its name."""
    return "For" in name or name.endswith("LMHeadModel")


def is_bare(name: str) -> bool:
    """Whether a class of transformers is a model without a head, by its name."""
    return name.endswith("Model") and not name.endswith("LMHeadModel")


def heads_of(task: str, model_type: str) -> tuple[str, ...]:
    """The heads that PEFT trains and saves whole for a task, of which a model of a type has one; "" is any type."""
    return () if model_type in OTHER_HEADS.get(task, ()) else HEADS.get(task, ())
