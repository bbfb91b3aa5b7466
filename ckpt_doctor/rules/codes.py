"""Every code: its number, its name, and its page. A code is never used again for another cause."""

from __future__ import annotations

from ..findings import Code

# files
NO_WEIGHTS = Code(
    "CD001",
    "no-weights",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
NO_CONFIG = Code(
    "CD002",
    "no-config",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
BROKEN_CONFIG = Code(
    "CD003",
    "broken-config",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
EMPTY_FILE = Code(
    "CD004",
    "empty-file",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
TRUNCATED_FILE = Code(
    "CD005",
    "truncated-file",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
LFS_POINTER = Code(
    "CD006",
    "lfs-pointer",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
HTML_PAGE = Code(
    "CD007",
    "html-page",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
WRONG_CONTAINER = Code(
    "CD008",
    "wrong-container",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
NOT_A_FILE = Code(
    "CD009",
    "not-a-file",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
PICKLE_WITH_CODE = Code(
    "CD010",
    "pickle-with-code",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.

An `adapter_model.bin` with code lies beside a good safetensors file. PEFT 0.2 and 0.3 and every program that
prefers `.bin` run the code; PEFT 0.4 and newer does not open the file where `adapter_model.safetensors` is there
(peft_model.py: load_adapter; utils/save_and_load.py: load_peft_weights).
A pickle counts as one with code where it calls anything but what rebuilds tensors, and so does a container that
torch reads otherwise than it looks. A fix leaves the file behind.
""",
)
MALFORMED_SAFETENSORS = Code(
    "CD011",
    "malformed-safetensors",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
MALFORMED_BIN = Code(
    "CD012",
    "malformed-bin",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
NO_TENSORS = Code(
    "CD013",
    "no-tensors",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
BROKEN_INDEX = Code(
    "CD014",
    "broken-index",
    """
A file is missing, damaged, or not what its name says. No loader takes the adapter.

A file without tensors is none of these: it is read, and every layer stays as it was initialised.
""",
)
SHARDED_WEIGHTS = Code(
    "CD015",
    "sharded-weights",
    """
The weights are in shards. PEFT looks for one file only (utils/save_and_load.py: load_peft_weights).
""",
)
CONFIG_IMPORTS_CODE = Code(
    "CD016",
    "config-imports-code",
    """
A LoRA's megatron_config is set, so PEFT imports the module that megatron_core names, before it looks at a layer:
0.7 (tuners/lora/model.py: _create_new_module) to 0.19 whatever it is, 0.20 and newer only `megatron.…`
(tuners/lora/tp_layer.py: dispatch_megatron). Other releases and methods import nothing.

Loaded in 0.5.0, 0.6.2, 0.7.1, 0.8.2, 0.12.0, 0.13.2, 0.15.2, 0.18.1, 0.19.1, 0.20.0 and 0.21.2 with a module that
leaves a mark: from 0.7.1 to 0.19.1 it ran, after which 0.7.1 loads the adapter and the others do so if the module
has a `tensor_parallel`. What it changes on the way nothing tells, so those count as computing something else; where
there is no such module they raise ModuleNotFoundError. 0.20 and 0.21 raise ValueError. What is no name of a module
is an exception in all of them, and so is megatron_config beside use_dora. `megatron.core` itself is what Megatron's
users have; elsewhere it is a ModuleNotFoundError. A loaded adapter computes the same without these keys.
""",
)
MEGATRON_CONFIG = Code(
    "CD017",
    "megatron-config",
    """
A LoRA's megatron_config is set, so PEFT imports the module that megatron_core names, before it looks at a layer:
0.7 (tuners/lora/model.py: _create_new_module) to 0.19 whatever it is, 0.20 and newer only `megatron.…`
(tuners/lora/tp_layer.py: dispatch_megatron). Other releases and methods import nothing.

Loaded in 0.5.0, 0.6.2, 0.7.1, 0.8.2, 0.12.0, 0.13.2, 0.15.2, 0.18.1, 0.19.1, 0.20.0 and 0.21.2 with a module that
leaves a mark: from 0.7.1 to 0.19.1 it ran, after which 0.7.1 loads the adapter and the others do so if the module
has a `tensor_parallel`. What it changes on the way nothing tells, so those count as computing something else; where
there is no such module they raise ModuleNotFoundError. 0.20 and 0.21 raise ValueError. What is no name of a module
is an exception in all of them, and so is megatron_config beside use_dora. `megatron.core` itself is what Megatron's
users have; elsewhere it is a ModuleNotFoundError. A loaded adapter computes the same without these keys.
""",
)
AUTO_MAPPING_IMPORT = Code(
    "CD018",
    "auto-mapping-import",
    """
auto_mapping.parent_library names a module that is not one of an installed library. PEFT writes the module of the
base model's class there (peft_model.py: save_pretrained), so that an honest adapter of one's own model has it, too.

PeftModel.from_pretrained never reads it, which is what the verdicts are about. AutoPeftModel imports it where there
is no task_type: PEFT 0.4 to 0.19 whatever it is, 0.20 and newer only what it lists or the caller allows (auto.py:
_BaseAutoPeftModel.from_pretrained).
""",
)
SAFETENSORS_ONLY = Code(
    "CD021",
    "safetensors-only",
    """
PEFT 0.2 and 0.3 read only `adapter_model.bin` (peft_model.py: from_pretrained).
""",
)
BOTH_FILES = Code(
    "CD022",
    "both-files",
    """
Both weight files are there: PEFT 0.4 and newer reads safetensors, 0.2 and 0.3 `.bin`, which may differ, or be
damaged. One that cannot be looked into may hold code, and is an error.
""",
)
# ranks
ADALORA_RANK_ZERO = Code(
    "CD101",
    "adalora-rank-zero",
    """
AdaLoRA's allocator pruned every triplet of a layer.

PEFT 0.8.0 – 0.9.0 raise "`r` should be a positive integer value but the value passed is 0" in
resize_modules_by_rank_pattern (huggingface/peft#1539); 0.5 – 0.7 and 0.10 and newer load it exactly.
""",
)
LORA_RANK_ZERO = Code(
    "CD102",
    "lora-rank-zero",
    """
A LoRA layer of rank 0: `r: 0`, a value 0 in rank_pattern, or factors without a row.

PEFT 0.6.0 and newer raise on r <= 0, in rank_pattern as well; 0.3 – 0.5 skip the layer in silence; zero-sized
factors under a positive r are a size mismatch in every release.
""",
)
UNGATHERED = Code(
    "CD103",
    "ungathered",
    """
Factors with one dimension: DeepSpeed ZeRO-3 or FSDP saved before the shards were gathered; the weights are lost.

huggingface/peft#1443, huggingface/peft#3251. Rank 0 is different: it is two-dimensional.
""",
)
ADALORA_PATTERN_MISMATCH = Code(
    "CD104",
    "adalora-pattern-mismatch",
    """
AdaLoRA's rank_pattern and the tensors disagree: every release sizes the modules by the pattern.
""",
)
RANK_MISMATCH = Code(
    "CD105",
    "rank-mismatch",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
ADAPTER_NAME = Code(
    "CD106",
    "adapter-name",
    """
The name that the adapter is loaded under occurs in a key of AdaLoRA's rank_pattern.

PEFT tests `adapter_name in name` as a substring and then takes one part more off the key
(tuners/adalora/model.py: resize_modules_by_rank_pattern), so the module is not found.
""",
)
# config keys
UNKNOWN_CONFIG_KEY = Code(
    "CD201",
    "unknown-config-key",
    """
Config keys newer than a release. Those that mean nothing can go; the others change the function.

PEFT 0.6.0 – 0.13.2 raise `TypeError: … got an unexpected keyword argument`; 0.5 and older ignore unknown keys and
0.14 and newer drop them, also where the key changes the function (huggingface/peft#2340).
""",
)
FUNCTION_CONFIG_KEY = Code(
    "CD202",
    "function-config-key",
    """
Config keys newer than a release. Those that mean nothing can go; the others change the function.

PEFT 0.6.0 – 0.13.2 raise `TypeError: … got an unexpected keyword argument`; 0.5 and older ignore unknown keys and
0.14 and newer drop them, also where the key changes the function (huggingface/peft#2340).
""",
)
STRANGE_CONFIG_KEY = Code(
    "CD203",
    "strange-config-key",
    """
Config keys newer than a release. Those that mean nothing can go; the others change the function.

PEFT 0.6.0 – 0.13.2 raise `TypeError: … got an unexpected keyword argument`; 0.5 and older ignore unknown keys and
0.14 and newer drop them, also where the key changes the function (huggingface/peft#2340).
""",
)
# config values, and what goes with them
ADALORA_UNSUPPORTED = Code(
    "CD301",
    "adalora-unsupported",
    """
PEFT 0.2 has no AdaLoRA; 0.3 and 0.4 fail where lora_dropout is 0 (lora_dropout_layer is not a Module), and with
a task type, whose class calls AdaLoraModel.forward: that reads a trainable_adapter_name, which a load never sets.
""",
)
ADALORA_SCHEDULE = Code(
    "CD302",
    "adalora-schedule",
    """
AdaLoRA's schedule is not one: PEFT 0.15 and newer raise while the config is read, though a loaded adapter
never uses it (tuners/adalora/config.py: __post_init__).
""",
)
BASE_CHANGING_INIT = Code(
    "CD303",
    "base-changing-init",
    """
init_lora_weights names a method that changes the base weights when the adapter is loaded.

0.6 and older take any string as true and leave the base as it is; from 0.7 an unknown one raises.
""",
)
BIAS_SPELLING = Code(
    "CD304",
    "bias-spelling",
    """
Trained biases under the names of one side of PEFT 0.7 only: the other side ignores them in silence.

0.7 and newer call the bias of an adapted module `.base_layer.bias`, older ones `.bias`.
""",
)
UNKNOWN_INIT = Code(
    "CD305",
    "unknown-init",
    """
init_lora_weights names a method that a release does not know: from 0.7 it raises, though it matters to none.
""",
)
IMPOSSIBLE_VALUE = Code(
    "CD306",
    "impossible-value",
    """
A config value is null, or of a type or range, with which PEFT fails while the model is built.
""",
)
ADALORA_OPTION = Code(
    "CD307",
    "adalora-option",
    """
Options of LoRA that AdaLoRA refuses from 0.11 on, though it never uses them (AdaLoraConfig.__post_init__).
""",
)
ALL_LINEAR = Code(
    "CD308",
    "all-linear",
    """
target_modules is "all-linear": unknown before 0.8, and for transformers models only before 0.15.
""",
)
NO_TARGET = Code(
    "CD309",
    "no-target",
    """
target_modules is "all-linear": unknown before 0.8, and for transformers models only before 0.15.

target_modules, or what narrows it, leaves out layers that have tensors, or says too little to tell.

Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
IGNORED_LAYER = Code(
    "CD310",
    "ignored-layer",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
OTHER_SCALE = Code(
    "CD311",
    "other-scale",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
MISSING_LAYER = Code(
    "CD312",
    "missing-layer",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
LAYERS_OPTIONS = Code(
    "CD313",
    "layers-options",
    """
layers_to_transform and layers_pattern where PEFT refuses them (LoraConfig.__post_init__): beside a regex, from
0.7 (AdaLoRA: 0.11); a layers_pattern alone, from 0.14.
""",
)
LAYER_KIND = Code(
    "CD314",
    "layer-kind",
    """
LoRA on a kind of layer that older releases do not adapt: they raise "Target module … is not supported".
""",
)
ADALORA_CONVOLUTION = Code(
    "CD315",
    "adalora-convolution",
    """
From 0.20 AdaLoRA adapts Conv2d, with tensors like a Linear's: the shapes do not tell which.
""",
)
NO_LAYERS = Code(
    "CD316",
    "no-layers",
    """
No layer is in the file, or the config names no target: what PEFT then does depends on the base model.
""",
)
DEFAULT_TARGETS = Code(
    "CD317",
    "default-targets",
    """
No layer is in the file, or the config names no target: what PEFT then does depends on the base model.
""",
)
UNPROVEN_OPTION = Code(
    "CD318",
    "unproven-option",
    """
Options that only the release that saved them is known to read alike. A saved arrow_config never loads from 0.18
(AttributeError: 'dict' object has no attribute 'top_k').
""",
)
IGNORED_EXCLUSION = Code(
    "CD319",
    "ignored-exclusion",
    """
PEFT 0.5 and older ignore exclude_modules: what it excludes is adapted there, and left as initialised, which is
not zero for AdaLoRA (lora_E ~ N(0, 0.02) in 0.5) and with init_lora_weights false.
""",
)
NOT_IN_BASE = Code(
    "CD320",
    "not-in-base",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
OTHER_SIZE = Code(
    "CD321",
    "other-size",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
UNSUPPORTED_TARGET = Code(
    "CD322",
    "unsupported-target",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
MISSING_SAVED = Code(
    "CD323",
    "missing-saved",
    """
modules_to_save or trainable tokens that the file has no tensors for: a KeyError from 0.15 on
(utils/save_and_load.py: set_peft_model_state_dict), if the base model has such a module.

For a classifier PEFT 0.13 and newer write both names that its head may have, of which a model has one
(peft_model.py: PeftModelForSequenceClassification, PeftModelForTokenClassification; huggingface/peft#2027).
""",
)
UNTARGETED_LAYERS = Code(
    "CD324",
    "untargeted-layers",
    """
Each release has its own way to match target_modules, rank_pattern and alpha_pattern (targets.py).

A layer that a release does not target is ignored in silence; one whose rank it reads otherwise is a size mismatch;
one whose scale it reads otherwise computes something else, in silence. What the release that saved the adapter
makes of it is what was meant; where that is not known, the newest that takes every tensor.
""",
)
HEAD_AMONG_TARGETS = Code(
    "CD325",
    "head-among-targets",
    """
LoRA on a module that is saved whole, or on a part of it: a classifier's head under all-linear, or named so.

PEFT wraps such a module twice, and writes its factors under three names. Up to 0.6 the module's own weight is
`<module>.weight`, then `<module>.base_layer.weight`; from 0.13 a wrapped head is no module that modules_to_save
takes (utils/other.py: ModulesToSaveWrapper.check_module), from 0.15 the names that a load asks for are others
(utils/save_and_load.py: set_peft_model_state_dict). Loaded in 18 releases on BERT, RoBERTa and Qwen2 with a
classifier.
""",
)
TARGET_WITHIN_SAVED = Code(
    "CD326",
    "target-within-saved",
    """
target_modules names a part of a module in modules_to_save, which holds more than one.

PEFT 0.6 – 0.13 wrap the module and then look for the part in the wrapper (tuners/tuners_utils.py: inject_adapter):
"ModulesToSaveWrapper has no attribute"; older ones adapt and then save it, newer ones leave it to the copy.
""",
)
AMBIGUOUS_PATTERN = Code(
    "CD327",
    "ambiguous-pattern",
    """
Several keys of alpha_pattern name one layer, with other values. PEFT takes the first, and sorts the keys when it saves
them (config.py: save_pretrained), so that it is lost which was the first in training. Loaded on Qwen2: PEFT 0.15 to
0.20 did not compute what they had saved.
""",
)
RENAMED_MODEL = Code(
    "CD328",
    "renamed-model",
    """
The layers lie in the language model of a vision-language model, which transformers 4.52 renamed
(`language_model.model.` became `model.language_model.`). PEFT 0.16 and newer find the old names; which release of
transformers an older one is used with shows nowhere. Loaded on LLaVA.
""",
)
# tensors
FOREIGN_PREFIX = Code(
    "CD401",
    "foreign-prefix",
    """
Keys that PEFT does not look for are ignored in silence (a warning from 0.14): the adapter does nothing.
""",
)
ADAPTER_NAME_IN_KEY = Code(
    "CD402",
    "adapter-name-in-key",
    """
Keys with an adapter's name in them (`.lora_A.default.weight`): ignored in silence up to PEFT 0.20.
""",
)
MISSING_FACTOR = Code(
    "CD403",
    "missing-factor",
    """
A layer without all of its factors: the missing ones stay as initialised, often at random.
""",
)
MISSING_PART = Code(
    "CD404",
    "missing-part",
    """
LoRA on a kind of layer that older releases do not adapt: they raise "Target module … is not supported".
""",
)
MANGLED_KEY = Code(
    "CD405",
    "mangled-key",
    """
Names in which older releases replace too much when they put the adapter's name into a key.

`k.replace(suffix, …)` up to 0.17 hits every "weight" in a path, and `split("lora_")` every "lora_"; up to 0.14 the
names in modules_to_save are replaced wherever they occur (utils/save_and_load.py: set_peft_model_state_dict). The
tensors then match nothing, in silence.
""",
)
FACTOR_DTYPE = Code(
    "CD406",
    "factor-dtype",
    """
Factors that are not floating point become something else in silence (int8 becomes zero); what torch has no name
for is undecided.
""",
)
WEIGHT_SUFFIX = Code(
    "CD407",
    "weight-suffix",
    """
LoRA's factors are modules with a `.weight`, an Embedding's and AdaLoRA's are bare; others are ignored.
""",
)
# methods other than LoRA
UNKNOWN_METHOD = Code(
    "CD501",
    "unknown-method",
    """
peft_type is none that a release knows: KeyError from its PEFT_TYPE_TO_CONFIG_MAPPING, in every release.

The name is in upper case; "lora" is no method. BONE was removed in PEFT 0.19, where MiSS took its place.
""",
)
METHOD_OF_OTHER_RELEASES = Code(
    "CD502",
    "method-of-other-releases",
    """
peft_type is none that a release knows: KeyError from its PEFT_TYPE_TO_CONFIG_MAPPING, in every release.

The name is in upper case; "lora" is no method. BONE was removed in PEFT 0.19, where MiSS took its place.
""",
)
UNKNOWN_TASK = Code(
    "CD503",
    "unknown-task",
    """
task_type is none that PEFT knows: "Invalid task type" from 0.14 on (PeftConfigMixin.__post_init__).
""",
)
TASK_OF_PROMPT = Code(
    "CD504",
    "task-of-prompt",
    """
task_type is none that PEFT knows: "Invalid task type" from 0.14 on (PeftConfigMixin.__post_init__).
""",
)
SHAPE_MISMATCH = Code(
    "CD505",
    "shape-mismatch",
    """
A layer's tensors are not those that PEFT builds from the config.

A shape that differs raises "size mismatch" in every release (load_state_dict); a tensor that is missing leaves
what its layer was initialised with, in silence up to 0.13; one that has no place is ignored.

The tensors that belong to no layer: an embedded prompt, VeRA's projection, the vector bank of VB-LoRA …

IA3 scales the input of a feed-forward layer and the output of any other (ia3/layer.py: update_layer).

Sizes that follow from the config and the layer's in and out in a way that `FORMS` cannot say.

road/layer.py and shira/layer.py: update_layer; osf/layer.py: U_low has the singular vectors beyond effective_rank.
""",
)
MISSING_TENSOR = Code(
    "CD506",
    "missing-tensor",
    """
A layer's tensors are not those that PEFT builds from the config.

A shape that differs raises "size mismatch" in every release (load_state_dict); a tensor that is missing leaves
what its layer was initialised with, in silence up to 0.13; one that has no place is ignored.

The tensors that belong to no layer: an embedded prompt, VeRA's projection, the vector bank of VB-LoRA …
""",
)
TENSOR_WITHOUT_PLACE = Code(
    "CD507",
    "tensor-without-place",
    """
A layer's tensors are not those that PEFT builds from the config.

A shape that differs raises "size mismatch" in every release (load_state_dict); a tensor that is missing leaves
what its layer was initialised with, in silence up to 0.13; one that has no place is ignored.
""",
)
UNKNOWN_SIZE = Code(
    "CD508",
    "unknown-size",
    """
A layer's tensors are not those that PEFT builds from the config.

A shape that differs raises "size mismatch" in every release (load_state_dict); a tensor that is missing leaves
what its layer was initialised with, in silence up to 0.13; one that has no place is ignored.

The tensors that belong to no layer: an embedded prompt, VeRA's projection, the vector bank of VB-LoRA …
""",
)
METHOD_WITHOUT_LAYERS = Code(
    "CD510",
    "method-without-layers",
    """
The tensors that belong to no layer: an embedded prompt, VeRA's projection, the vector bank of VB-LoRA …
""",
)
NULL_VALUE = Code(
    "CD511",
    "null-value",
    """
A config value of another kind than its default: null where PEFT computes with a number, a word for a number.
""",
)
RANK_ZERO = Code(
    "CD512",
    "rank-zero",
    """
A config value of another kind than its default: null where PEFT computes with a number, a word for a number.
""",
)
ODD_VALUE = Code(
    "CD513",
    "odd-value",
    """
A config value of another kind than its default: null where PEFT computes with a number, a word for a number.
""",
)
ADAPTER_NAME_IN_METHOD_KEY = Code(
    "CD514",
    "adapter-name-in-method-key",
    """
Keys with an adapter's name in them (`.lily_A.default.weight`): ignored up to PEFT 0.20.

0.21 takes them under the name "default", save where a method's keys are remapped in another way.
""",
)
UNCLEAR_TARGET = Code(
    "CD515",
    "unclear-target",
    """
target_modules, or what narrows it, leaves out layers that have tensors, or says too little to tell.

IA3 scales the input of a feed-forward layer and the output of any other (ia3/layer.py: update_layer).
""",
)
UNEVEN_LAYERS = Code(
    "CD516",
    "uneven-layers",
    """
A layer is missing, or a tensor of one, that others of its name have: it would stay as it was initialised.

A base model may well be so (a hybrid of two kinds of blocks), so this is a doubt, not a fault.
""",
)
UNSAVED_BIAS = Code(
    "CD517",
    "unsaved-bias",
    """
What the config says was trained beside the method, and is not in the file: modules_to_save, biases.

Up to 0.20 most methods train their biases and do not save them (BaseTuner._get_learnable_bias_state_dict is of
0.21): such an adapter computes something else in the very release that saved it.
""",
)
UNSAVED_MODULE = Code(
    "CD518",
    "unsaved-module",
    """
What the config says was trained beside the method, and is not in the file: modules_to_save, biases.

Up to 0.20 most methods train their biases and do not save them (BaseTuner._get_learnable_bias_state_dict is of
0.21): such an adapter computes something else in the very release that saved it.
""",
)
CONTRADICTING_SIZES = Code(
    "CD519",
    "contradicting-sizes",
    """
A config value of another kind than its default: null where PEFT computes with a number, a word for a number.
""",
)
STRANGE_TENSOR = Code(
    "CD520",
    "strange-tensor",
    """
Tensors that are not the method's, nor of what the config says was trained beside it.

One that names a parameter of the base model overwrites it; any other is ignored (load_state_dict, not strict).
""",
)
OFT_GENERATION = Code(
    "CD521",
    "oft-generation",
    """
OFT was written anew twice: its files are of 0.7 – 0.13, of 0.14 – 0.15, or of 0.16 and newer.

0.14 and newer want `oft_block_size` in the config (OFTConfig.check_kwargs); 0.16 – 0.20 reject the older
`oft_r` ("Trying to load old OFT checkpoint"), 0.21 loads it and ignores it. The Cayley-Neumann series was cut off
by another rule in 0.18 (tuners/oft/layer.py: _cayley_batch).
""",
)
SCALE_BY_RELEASE = Code(
    "CD522",
    "scale-by-release",
    """
LoKr and LoHa whose layers older releases scale in another way.

Up to 0.13 LoKr leaves out alpha / r (tuners/lokr/layer.py: get_delta_weight); up to 0.14 both match rank_pattern
and alpha_pattern by one key for both.
""",
)
LOKR_DECOMPOSITION = Code(
    "CD523",
    "lokr-decomposition",
    """
LoKr decomposes its second matrix where r is below half of its larger side (lokr/layer.py: update_layer).

A file that has it the other way has lost the r it was saved with: the tensors that it has are ignored.
""",
)
CONVOLUTION = Code(
    "CD524",
    "convolution",
    """
Convolutions that a release does not adapt, or adapts in another way.

IA3: 2d from 0.6, 3d from 0.14. LoHa and LoKr: 1d from 0.18. BOFT's changed in 0.14 (boft_s was not transposed).
""",
)
FEEDFORWARD_UNTARGETED = Code(
    "CD525",
    "feedforward-untargeted",
    """
IA3 scales the input of a feed-forward layer and the output of any other (ia3/layer.py: update_layer).
""",
)
METHOD_BY_RELEASE = Code(
    "CD526",
    "method-by-release",
    """
Smaller differences between releases, one a method; each entry says where it is.
""",
)
MODULES_BESIDE_PROMPT = Code(
    "CD527",
    "modules-beside-prompt",
    """
Prompt learning with modules_to_save: releases that do not know the key overwrite the base weight instead.

That is the same, but where the base model ties the module to another (peft_model.py: load_adapter).
""",
)
# servers
SERVER_FILES = Code(
    "CD601",
    "server-files",
    """
VLLM reads .safetensors, .bin and .pt, SGLang also any other name, llama.cpp .safetensors and .bin, transformers
and Ollama .safetensors only.
""",
)
SERVER_CONFIG = Code(
    "CD602",
    "server-config",
    """
What each needs of the config: vLLM says "Missing required configuration fields", SGLang raises a KeyError.
""",
)
SERVER_BIAS = Code(
    "CD603",
    "server-bias",
    """
What each needs of the config: vLLM says "Missing required configuration fields", SGLang raises a KeyError.
""",
)
SERVER_MODULES_TO_SAVE = Code(
    "CD604",
    "server-modules-to-save",
    """
What each needs of the config: vLLM says "Missing required configuration fields", SGLang raises a KeyError.
""",
)
NOT_LORA = Code(
    "CD605",
    "not-lora",
    """
Servers take LoRA only: other tensors are "unsupported LoRA weight", "Not a lora_A or lora_B tensor".
""",
)
SERVER_OPTION = Code(
    "CD606",
    "server-option",
    """
Options of LoRA that a server refuses ("vLLM does not yet support DoRA.") or ignores in silence.
""",
)
SERVER_SCALE = Code(
    "CD607",
    "server-scale",
    """
The scale that a server takes against the true one: SGLang lora_alpha / r, llama.cpp and TensorRT-LLM lora_alpha
over the rank of the tensor, TGI and LoRAX as PEFT without patterns. A scale of 0 is 1 to llama.cpp.
""",
)
SERVER_UNEVEN_RANK = Code(
    "CD608",
    "server-uneven-rank",
    """
The scale that a server takes against the true one: SGLang lora_alpha / r, llama.cpp and TensorRT-LLM lora_alpha
over the rank of the tensor, TGI and LoRAX as PEFT without patterns. A scale of 0 is 1 to llama.cpp.
""",
)
SERVER_TARGETS = Code(
    "CD609",
    "server-targets",
    """
SGLang takes a list of module names that it knows; "Only 'all' or 'all-linear' can be used as the string".
""",
)
SERVER_FUSED_GROUP = Code(
    "CD610",
    "server-fused-group",
    """
Modules that a server fuses, of which one is missing; and kinds of modules that not every layer has.
""",
)
SERVER_PARTIAL_TYPE = Code(
    "CD611",
    "server-partial-type",
    """
Modules that a server fuses, of which one is missing; and kinds of modules that not every layer has.
""",
)
SERVER_KEY = Code(
    "CD612",
    "server-key",
    """
Names of keys: "is unsupported LoRA weight", "Can not map tensor", or a path that nothing is found under.
""",
)
SERVER_FACTOR = Code(
    "CD613",
    "server-factor",
    """
Factors that are missing, empty, flat, or do not agree.
""",
)
SERVER_TENSOR = Code(
    "CD614",
    "server-tensor",
    """
Tensors that are no factor: copies of the base are skipped; anything else is refused, ignored or dropped.
""",
)
SERVER_RANK_LIMIT = Code(
    "CD615",
    "server-rank-limit",
    """
LoRA rank 32 is greater than max_lora_rank 16; without a limit none is assumed.
""",
)
SERVER_MODEL = Code(
    "CD616",
    "server-model",
    """
Names and sizes against the base model; without it nothing shows whether they fit.
""",
)
SERVER_NOT_IN_BASE = Code(
    "CD617",
    "server-not-in-base",
    """
Names and sizes against the base model; without it nothing shows whether they fit.
""",
)
SERVER_SIZE = Code(
    "CD618",
    "server-size",
    """
Names and sizes against the base model; without it nothing shows whether they fit.
""",
)
BASE_UNSEEN = Code(
    "CD690",
    "base-unseen",
    """
Names and sizes against the base model; without it nothing shows whether they fit.
""",
)
# what is not judged
NOT_JUDGED = Code(
    "CD901",
    "not-judged",
    """
A method that this version does not judge: where a release knows it, nothing is said.
""",
)
