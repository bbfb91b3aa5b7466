"""Every code: its number, its name, and its page. A code is never used again for another cause.

A page says what is wrong, why, who stops, what to do, and what shows it: a file and a symbol in PEFT, or an upstream
issue.
"""

from __future__ import annotations

from .findings import Code

# fmt: off

# Files

NO_WEIGHTS = Code("CD001", "no-weights", """
There is no file of weights beside the config.
Why: PEFT looks for two names only. A save that was stopped, a download of the config alone, or another name leaves it
none.
Who stops: every PEFT release.
What to do: save the adapter again, or fetch adapter_model.safetensors from where it was made.
References: utils/save_and_load.py: load_peft_weights, which looks for adapter_model.safetensors and adapter_model.bin.
""")
NO_CONFIG = Code("CD002", "no-config", """
There is no adapter_config.json.
Why: the weights tell neither the method nor its scale, and PEFT builds the model by the config before it reads them.
Who stops: every PEFT release.
What to do: fetch the config from where the adapter was made. It cannot be made from the weights.
References: config.py: PeftConfigMixin.from_pretrained, "Can't find 'adapter_config.json'".
""")
BROKEN_CONFIG = Code("CD003", "broken-config", """
adapter_config.json is not a JSON object.
Why: the config is read before anything else. A merge conflict, an edit by hand or a stopped download leaves such a
file.
Who stops: every PEFT release.
What to do: mend the JSON by hand, or fetch the file again.
References: config.py: PeftConfigMixin.from_json_file.
""")
EMPTY_FILE = Code("CD004", "empty-file", """
The file of weights has no bytes.
Why: the disk was full, or the program was killed while it saved.
Who stops: every PEFT release.
What to do: fetch the file again, or save the adapter again.
References: safetensors, "header too small"; torch.load, EOFError.
""")
TRUNCATED_FILE = Code("CD005", "truncated-file", """
The file of weights ends before its last tensor does.
Why: a download or a copy was stopped, or the disk was full.
Who stops: every PEFT release.
What to do: fetch the file again. What is missing cannot be made up.
References: safetensors, "invalid header length", and "incomplete metadata, file not fully covered".
""")
LFS_POINTER = Code("CD006", "lfs-pointer", """
The file of weights is a pointer of git-lfs, some lines of text, and not the weights.
Why: git leaves the pointer where git-lfs is not installed, or was told to skip the files.
Who stops: every PEFT release.
What to do: run `git lfs pull` in the repository.
References: safetensors, "header too large": it takes the first letters for the length of a header.
""")
HTML_PAGE = Code("CD007", "html-page", """
The file of weights is a web page.
Why: an error or a log-in page was saved under its name.
Who stops: every PEFT release.
What to do: download the file itself, from its `resolve` address on the Hub.
References: safetensors, "header too large"; torch.load, UnpicklingError.
""")
WRONG_CONTAINER = Code("CD008", "wrong-container", """
The file of weights has another format than its name says: torch's for safetensors, the reverse, or compressed.
Why: the reader is chosen by the name. The file was renamed, and not converted.
Who stops: every PEFT release.
What to do: give the file its right name, or unpack it.
References: utils/save_and_load.py: load_peft_weights, which chooses the reader by the name.
""")
NOT_A_FILE = Code("CD009", "not-a-file", """
Where a file should be there is a folder, a device, a pipe, or a link to nothing.
Why: a link leads into a cache of the Hub that was cleared, or something else took the name.
Who stops: every PEFT release.
What to do: put the file in its place.
References: `open`, which raises, or waits for ever on a pipe.
""")
PICKLE_WITH_CODE = Code("CD010", "pickle-with-code", """
A pickle runs code when it is loaded: it calls something that does not rebuild tensors, or hides a second pickle.
Why: a pickle is a program, which runs with the rights of whoever loads it. An adapter_model.bin beside safetensors that
cannot be looked into counts as one, since nothing tells that it is none.
Who stops: every PEFT release where the pickle is the only file; 0.2 and 0.3, and any program that prefers `.bin`, where
it lies beside safetensors. PEFT 0.4 and newer does not open it there. With torch before 2.6 the code runs.
What to do: do not load it. `fix` leaves the one beside safetensors behind.
References: utils/save_and_load.py: load_peft_weights; torch 2.6 and newer, UnpicklingError (weights_only).
""")
MALFORMED_SAFETENSORS = Code("CD011", "malformed-safetensors", """
The header of the safetensors file breaks the format: it is no JSON, or its tensors overlap or leave bytes to none.
Why: safetensors takes a file only where each byte belongs to one tensor. The file was changed, or written by something
else than the library.
Who stops: every PEFT release.
What to do: fetch the file again, or save it with the safetensors library.
References: safetensors, "invalid JSON in header", "invalid offset", "incomplete metadata, file not fully covered".
""")
MALFORMED_BIN = Code("CD012", "malformed-bin", """
The `.bin` is not what torch.save writes of a state dict: a broken zip, a pickle that ends early, an entry that is no
tensor.
Why: torch.load rebuilds tensors and nothing else. A whole model that was pickled, or a download that was stopped, is no
state dict.
Who stops: every PEFT release.
What to do: fetch the file again, or save the state dict alone.
References: torch.load with weights_only.
""")
NO_TENSORS = Code("CD013", "no-tensors", """
The file of weights holds no tensor: nothing was saved.
Why: often the state dict was gathered on another process than the one that saved it.
Who stops: every PEFT release loads it in silence, and every layer stays as it was initialised.
What to do: save again, from the process that has the weights.
References: utils/save_and_load.py: set_peft_model_state_dict, which does not ask for every key.
""")
BROKEN_INDEX = Code("CD014", "broken-index", """
The index of the shards names a file that is not there, or a tensor that its shard does not have.
Why: shards are found by the index alone. One was not copied, or is of another save.
Who stops: every PEFT release.
What to do: fetch the missing shard, and the index from the same place.
References: utils/save_and_load.py: load_peft_weights, which reads no shards at all.
""")
SHARDED_WEIGHTS = Code("CD015", "sharded-weights", """
The weights are in several shards.
Why: a program that splits large models saved the adapter. PEFT itself saves one file.
Who stops: every PEFT release: it looks for one file only.
What to do: `fix` writes them as one file.
References: utils/save_and_load.py: load_peft_weights.
""")
CONFIG_IMPORTS_CODE = Code("CD016", "config-imports-code", """
A LoRA's megatron_config is set and megatron_core names a module of its own, which PEFT imports, and so runs.
Why: a word in a file then decides which code runs on the machine that loads it.
Who stops: 0.7 – 0.19 import whatever it is, before they look at a layer; what the module changes nothing tells, so they
count as computing something else. 0.20 and newer raise ValueError unless the name begins with `megatron.`.
What to do: `fix` drops both keys. A loaded adapter computes the same without them.
References: tuners/lora/model.py: _create_new_module; tuners/lora/tp_layer.py: dispatch_megatron; loads in 11 releases
of a module that leaves a mark.
""")
MEGATRON_CONFIG = Code("CD017", "megatron-config", """
A LoRA's megatron_config is set, so PEFT imports megatron.core, which few have.
Why: PEFT imports the module to see whether a layer is one of Megatron's, also where none is.
Who stops: 0.7 and newer, with a ModuleNotFoundError where Megatron is not installed. A name that is no module raises in
all of them, and megatron_config beside use_dora in 0.9 and newer. Other methods import nothing.
What to do: `fix` drops both keys. A loaded adapter computes the same without them.
References: tuners/lora/tp_layer.py: dispatch_megatron.
""")
AUTO_MAPPING_IMPORT = Code("CD018", "auto-mapping-import", """
auto_mapping names a module that is none of an installed library.
Why: PEFT writes the module of the base model's class there, so an honest adapter of one's own model has it, too. A
stranger's may name any module.
Who stops: nobody: PeftModel.from_pretrained never reads it. AutoPeftModel imports the module, and so runs it, where
there is no task_type: 0.4 – 0.19 whatever it is, 0.20 and newer what it lists or the caller allows.
What to do: load with PeftModel, or look at the module before.
References: auto.py: _BaseAutoPeftModel.from_pretrained; peft_model.py: save_pretrained.
""")
SAFETENSORS_ONLY = Code("CD021", "safetensors-only", """
There is no adapter_model.bin, the only file that the oldest releases read.
Why: PEFT reads safetensors since 0.4.
Who stops: 0.2 and 0.3.
What to do: `fix --weights bin`, where such a release has to take it; `--for peft==0.3.0` does so, too.
References: peft_model.py: from_pretrained.
""")
BOTH_FILES = Code("CD022", "both-files", """
Both files of weights are there, and the adapter_model.bin holds something else, is damaged, or is too large to
compare without `--values`.
Why: a program reads one of the two and never looks at the other, so that one folder is two adapters.
Who stops: 0.2 and 0.3, which read `.bin`; 0.4 and newer read safetensors.
What to do: remove the one that is not meant. `fix` writes one file, from the safetensors.
References: utils/save_and_load.py: load_peft_weights.
""")
OTHER_NAME = Code("CD023", "other-name", """
The weights of an adapter of PEFT are there, under a name that PEFT does not look for.
Why: some tools name the file after the step or the run, and PEFT looks for two names only.
Who stops: every PEFT release.
What to do: `fix` writes it under the right name, where its adapter_config.json is beside it, or is named with
--adapter-config. Or rename the file to adapter_model.safetensors (adapter_model.bin, if it is one of torch's), beside
that.
References: utils/save_and_load.py: load_peft_weights.
""")
OTHER_FORMAT = Code("CD024", "other-format", """
What is there is an adapter, and not one of PEFT: another tool wrote it, in a layout of its own.
Why: kohya's sd-scripts, LyCORIS, ComfyUI, diffusers, mistral-finetune, torchtune, MLX, Megatron, loralib and llama.cpp
have names, shapes and scales of their own. It is told by the names of its tensors, or of its files.
Who stops: every PEFT release.
What to do: `fix` makes an adapter of PEFT of what MLX, torchtune, llama.cpp, sd-scripts, LyCORIS and diffusers wrote,
where that is exact; the message says why it is not. Otherwise load it with the tool that the message names, or have
that one export an adapter of PEFT.
References: utils/save_and_load.py: load_peft_weights, which looks for adapter_model.safetensors and adapter_model.bin.
""")
TRAINING_STATE = Code("CD025", "training-state", """
What is there is the state of a training, and the adapter is not beside it.
Why: DeepSpeed's ZeRO, FSDP, Megatron and orbax write a shard for each process, and a Trainer or accelerate write
optimizers and counters. The adapter is in the shards, or nowhere, until it is gathered and saved.
Who stops: every PEFT release.
What to do: gather the shards with the command that is named, and take the adapter out of the result with
`ckpt-doctor fix MODEL OUT --adapter-config FILE`. Where no command is, load them in the code that trained it, and save
the adapter with model.save_pretrained of PEFT.
References: utils/save_and_load.py: load_peft_weights.
""")
WHOLE_MODEL = Code("CD026", "whole-model", """
What is there is a whole model, and not an adapter; or one that has an adapter inside.
Why: a model that holds LoRA layers is saved whole where the save is not PEFT's own, as by accelerate or by a Trainer
whose model is none of PEFT. Merged models have no adapter any more.
Who stops: every PEFT release.
What to do: name the folder of the adapter. Where it is inside, `ckpt-doctor fix IN OUT` takes it out: the tensors that
PEFT would have saved of the model. What scales it stands in its adapter_config.json alone, which has to lie beside the
model or be named with --adapter-config. Else load the model in the code that trained it, and save the adapter alone
with model.save_pretrained of PEFT.
References: peft_model.py: PeftModel.save_pretrained; utils/save_and_load.py: get_peft_model_state_dict.
""")
LEFT_BESIDE = Code("CD027", "left-beside", """
Weights that were trained with the adapter lie beside it, in a file that PEFT does not know.
Why: LLaVA and what follows it save a projector and the like apart, in non_lora_trainables.bin, LongLoRA embeddings and
norms in trainable_params.bin, LLaMA-Factory the head of a reward model in value_head.safetensors. Without them the
model is another than the one that was trained, and nothing says so.
Who stops: nobody.
What to do: load that file, too, as the code that trained it does, after the base model and before the adapter.
References: LLaVA llava/train/train.py: get_peft_state_non_lora_maybe_zero_3; llava/model/builder.py.
""")

# Ranks

ADALORA_RANK_ZERO = Code("CD101", "adalora-rank-zero", """
AdaLoRA's allocator pruned every triplet of a layer, whose factors now have rank 0.
Why: AdaLoRA spends its budget on the triplets that matter most in the whole model, so a layer may keep none. PEFT sizes
each layer by what was kept, and two releases cannot make one of size 0.
Who stops: 0.8 and 0.9, "`r` should be a positive integer value but the value passed is 0"; 0.5 – 0.7 and 0.10 and newer
load it exactly.
What to do: `fix` gives the layer one triplet of zeros, or takes it out (`--rank-zero prune`).
References: tuners/adalora/model.py: resize_modules_by_rank_pattern; huggingface/peft#1539.
""")
LORA_RANK_ZERO = Code("CD102", "lora-rank-zero", """
A LoRA layer of rank 0: `r` is 0, a value of rank_pattern is, or factors have no row.
Why: PEFT makes factors with `r` rows, and most releases refuse to make none.
Who stops: 0.6 and newer raise on such an `r`, in rank_pattern as well; 0.3 – 0.5 skip the layer in silence. Factors
without a row under a positive `r` are a size mismatch in every release.
What to do: `fix` gives the layer zeros at the config's `r`, or takes it out.
References: tuners/lora/layer.py: update_layer.
""")
UNGATHERED = Code("CD103", "ungathered", """
Factors have one dimension instead of two, or a module that is saved whole is empty or flat.
Why: DeepSpeed ZeRO-3 or FSDP saved before the shards were gathered: each process held a flat piece. The weights are
lost.
Who stops: every PEFT release, by a size mismatch.
What to do: save again with the parameters gathered (deepspeed.zero.GatheredParameters, or FSDP's full state dict). Rank
0 is another thing: it has two dimensions.
References: huggingface/peft#1443, huggingface/peft#3251, huggingface/accelerate#3732.
""")
ADALORA_PATTERN_MISMATCH = Code("CD104", "adalora-pattern-mismatch", """
AdaLoRA's rank_pattern does not fit the tensors: other counts, another length than init_r, numbers for true and false,
or modules that the file does not have.
Why: PEFT sizes each module by its part of the pattern, and then loads the tensors into it.
Who stops: every PEFT release. A module that is adapted and has no tensors is left as it was initialised, in silence;
without a true in the pattern it adds nothing, as it should.
What to do: `fix --for` makes the pattern anew from the tensors.
References: tuners/adalora/model.py: resize_modules_by_rank_pattern.
""")
RANK_MISMATCH = Code("CD105", "rank-mismatch", """
The rank of a layer's tensors is not what `r` and rank_pattern say, as some release reads them.
Why: PEFT sizes each layer by the config, and then loads the tensors into it.
Who stops: the releases that read another rank, by a size mismatch. One key serves both patterns up to 0.13, and 0.15
and newer match the whole end of a name.
What to do: `fix --for` names the patterns in full, or gives all layers one rank.
References: tuners/lora/model.py: _create_and_replace; utils/other.py: get_pattern_key.
""")
ADAPTER_NAME = Code("CD106", "adapter-name", """
The name that the adapter is loaded under occurs in a key of AdaLoRA's rank_pattern.
Why: PEFT takes the name out of each key to find the module, and looks for it anywhere: the key then loses one part too
many.
Who stops: 0.3 and newer: the module is not found.
What to do: load it under another name (`--adapter-name` says which), or `fix --for`, which makes LoRA of it.
References: tuners/adalora/model.py: resize_modules_by_rank_pattern.
""")
NEVER_ALLOCATED = Code("CD107", "never-allocated", """
An AdaLoRA has every triplet that it began with: nothing was pruned.
Why: the allocator runs in update_and_allocate, which no Trainer calls, and not before step tinit; a target_r that is no
less than init_r leaves nothing to prune.
Who stops: nobody. It computes what was trained, as a LoRA of rank init_r would.
What to do: call model.base_model.update_and_allocate(global_step) after each optimizer step, train beyond tinit, and
set target_r below init_r.
References: tuners/adalora/model.py: AdaLoraModel.update_and_allocate; huggingface/peft#432, #1327, #1801.
""")
SHORT_OF_BUDGET = Code("CD108", "short-of-budget", """
An AdaLoRA has more triplets than its budget: it was saved while it was being pruned.
Why: the budget falls from step tinit to total_step - tfinal, and a checkpoint before that, or a total_step that is more
than the steps of the run, is on the way.
Who stops: nobody.
What to do: train to total_step - tfinal at the least, or set total_step to the steps of the run.
References: tuners/adalora/layer.py: RankAllocator.budget_schedule.
""")
OTHER_TOTAL_STEP = Code("CD109", "other-total-step", """
AdaLoRA's total_step is not the number of steps of the run, as the Trainer's state beside it has them.
Why: the schedule of the budget is counted by total_step: with too many steps it never ends, with too few it ends early.
Who stops: nobody.
What to do: set total_step to the steps of the run, before it begins.
References: tuners/adalora/layer.py: RankAllocator.budget_schedule; transformers trainer_callback.py: TrainerState.
""")
VANISHED_MODULES = Code("CD110", "vanished-modules", """
AdaLoRA left no triplet to any layer of a kind of modules.
Why: the triplets of all layers compete for one budget, and where that is low, kinds of modules whose scores are small
lose all of theirs.
Who stops: nobody, by itself; layers of rank 0 stop 0.8 and 0.9 (CD101).
What to do: raise target_r, or take these modules from target_modules, so that their parameters are not spent.
References: tuners/adalora/layer.py: RankAllocator.mask_to_budget.
""")
R_FOR_INIT_R = Code("CD111", "r-for-init-r", """
r is set for an AdaLoRA, which does not read it, and init_r is what it is where nobody sets it.
Why: AdaLoRA begins with init_r triplets a layer and ends with target_r on the average; r is LoRA's.
Who stops: nobody.
What to do: set init_r, and target_r, in the next training.
References: tuners/adalora/config.py: AdaLoraConfig.
""")
TRAINED_NO_FURTHER = Code("CD112", "trained-no-further", """
An AdaLoRA that was pruned cannot be trained on as it is.
Why: the allocator chooses among as many scores as all layers had at the start, and the layers have only what was left:
"kthvalue(): selected number k out of range", or, late in the schedule, "The size of tensor a (12) must match the size
of tensor b (8)". Where much is left it goes on, and prunes below the budget.
Who stops: nobody that only loads it.
What to do: `fix --for-training` writes it with the triplets that it had, the pruned ones zero, which computes the same.
Begin its schedule anew, at step 0.
References: tuners/adalora/layer.py: RankAllocator.mask_to_budget; huggingface/peft#3373.
""")

# Config keys

UNKNOWN_CONFIG_KEY = Code("CD201", "unknown-config-key", """
The config has keys that older releases do not know, and that do not change what the adapter computes.
Why: PEFT saves every key that it knows, and some releases hand every key that they read to a class that takes no other.
Who stops: 0.6 – 0.13, "got an unexpected keyword argument". 0.5 and older ignore the keys, 0.14 and newer drop them.
What to do: `fix` drops the keys.
References: config.py: PeftConfigMixin.from_peft_type; huggingface/peft#2340.
""")
FUNCTION_CONFIG_KEY = Code("CD202", "function-config-key", """
The config has keys that older releases do not know, and that change what the adapter computes.
Why: the key belongs to a feature that came later, and it is not at its default.
Who stops: 0.6 – 0.13 raise "got an unexpected keyword argument". 0.5 and older ignore the key, and 0.14 and newer drop
it, so that they compute something else in silence.
What to do: use a release that knows the key. `fix --for` says rsLoRA and patterns in a form that older ones read.
References: config.py: PeftConfigMixin.from_peft_type; huggingface/peft#2340.
""")
STRANGE_CONFIG_KEY = Code("CD203", "strange-config-key", """
The config has a key that no release has for this method.
Why: the config was written by hand, by another program, or by a changed PEFT.
Who stops: 0.6 – 0.13, "got an unexpected keyword argument". Where no release is known to have saved the config, it is
undecided what the others leave out.
What to do: `fix --for` drops the key where the release that saved the adapter is known, which never had it.
References: config.py: PeftConfigMixin.from_peft_type.
""")

# Config values, and what goes with them

ADALORA_UNSUPPORTED = Code("CD301", "adalora-unsupported", """
The oldest releases do not have AdaLoRA, or cannot run it.
Why: AdaLoRA came with 0.3, and its first two releases had faults that 0.5 no longer has.
Who stops: 0.2 has no AdaLoRA. 0.3 and 0.4 fail where lora_dropout is 0, and with a task_type.
What to do: use 0.5 or newer, or `fix --for`, which makes LoRA of it.
References: tuners/adalora.py: SVDLinear, "lora_dropout_layer is not a Module subclass"; AdaLoraModel.forward.
""")
ADALORA_SCHEDULE = Code("CD302", "adalora-schedule", """
total_step is missing or not above tinit + tfinal, although a loaded adapter never uses it.
Why: newer releases check the schedule of the training while they read the config, also where nothing is trained.
Who stops: 0.15 and newer, while the config is read.
What to do: `fix` sets total_step for inference. To train on, set it to the real number of steps.
References: tuners/adalora/config.py: `__post_init__`.
""")
BASE_CHANGING_INIT = Code("CD303", "base-changing-init", """
init_lora_weights names a method that changes the base weights when the adapter is loaded (PiSSA, OLoRA, CorDA …).
Why: such a method moves a part of the base weight into the factors, so they are right only on the base that it changed.
Who stops: 0.7 and newer reject a name that they do not know; CorDA and LoftQ never load without their preparation. 0.6
and older leave the base as it is, so they compute something else than newer ones. What was meant hangs on who saved it.
LoRA-GA (0.19) changes the base in training alone, if that has gradients: whether a load is right hangs on the base.
What to do: use a release that knows the method. Never set it to true: the base weights then differ.
References: tuners/lora/layer.py: LoraLayer.reset_lora_parameters.
""")
BIAS_SPELLING = Code("CD304", "bias-spelling", """
The biases that were trained are under a name that a release does not look for, or are not in the file at all.
Why: the bias is the base layer's, which 0.7 put inside the adapter's layer: its name became another one.
Who stops: 0.7 and newer call the bias of an adapted module `.base_layer.bias`, older ones `.bias`; each side ignores
the other's in silence. Without any bias every release computes something else.
What to do: `fix` writes both names. Biases that are not in the file are lost.
References: utils/save_and_load.py: get_peft_model_state_dict; loads across 0.6 and 0.7.
""")
UNKNOWN_INIT = Code("CD305", "unknown-init", """
init_lora_weights is a word that a release does not know, although it matters to no loaded adapter.
Why: the factors come from the file, but PEFT initialises them first, and looks the word up.
Who stops: 0.7 and newer, up to the release that has the word (eva: 0.14, orthogonal: 0.16, mica: 0.20); that and newer
ones, too, where the layer is a convolution, or orthogonal meets an odd rank.
What to do: `fix --for` sets it to true.
References: tuners/lora/layer.py: LoraLayer.reset_lora_parameters.
""")
IMPOSSIBLE_VALUE = Code("CD306", "impossible-value", """
A config value is null, missing, or of a type or range with which PEFT cannot build the model.
Why: PEFT computes with the value as it builds the model. It was written by hand, or by another program.
Who stops: every PEFT release, as a rule. A null pattern stops 0.6 and newer, a null loftq_config 0.7 – 0.18, a
lora_alpha or lora_dropout that is missing 0.2 and 0.3, an orth_reg_weight that is null or negative 0.20 and newer,
a bias that is another method's up to 0.17.
What to do: set the value. `fix --for` fills in a null whose meaning is known.
References: tuners/lora/layer.py: update_layer; tuners/lora/config.py: LoraConfig.
""")
ADALORA_OPTION = Code("CD307", "adalora-option", """
An option of LoRA that AdaLoRA refuses, although it never uses it.
Why: AdaLoRA's config has all keys of LoRA's, and checks some that it has no use for.
Who stops: use_dora 0.11 and newer, loftq_config 0.11 – 0.13.
What to do: `fix --for` drops the key, or makes LoRA of the adapter.
References: tuners/adalora/config.py: `__post_init__`.
""")
ALL_LINEAR = Code("CD308", "all-linear", """
target_modules is "all-linear".
Why: the word stands for all linear layers but the head. PEFT has to know it, and where the head is.
Who stops: 0.7 and older, which look for a module of that name; and 0.8 – 0.14, where the base is no model of
transformers.
What to do: `fix --for` names the layers that the file has.
References: tuners/tuners_utils.py: _maybe_include_all_linear_layers.
""")
NO_TARGET = Code("CD309", "no-target", """
target_modules matches none of the layers in the file.
Why: PEFT picks the modules by target_modules before it reads the tensors: a list by the ends of their names, one word
as a pattern for the whole name.
Who stops: the releases that read it so, "Target modules … not found in the base model". Releases differ in where a name
may begin, and in how a list, a pattern and layers_to_transform go together.
What to do: `fix --for` names the layers in full, where some release shows which were meant.
References: tuners/tuners_utils.py: check_target_module_exists, inject_adapter.
""")
IGNORED_LAYER = Code("CD310", "ignored-layer", """
Releases target different layers of the file, by target_modules and what narrows it.
Why: how a list, a pattern, layers_to_transform and exclude_modules go together was changed between releases.
Who stops: the releases that leave out a layer which the one that saved the adapter adapts, or the reverse. They ignore
its tensors in silence.
What to do: `fix --for` names the targets in full.
References: tuners/tuners_utils.py: check_target_module_exists; ckpt_doctor/facts/targets.py, release by release.
""")
OTHER_SCALE = Code("CD311", "other-scale", """
Releases read another scale for a layer, from lora_alpha, alpha_pattern, rank_pattern and use_rslora, or of a table of
words that scales what it gives, as Gemma 3 has one.
Why: no file has the scale itself. Each release computes it from these keys, and how was changed.
Who stops: the releases whose scale is not that of the one that saved the adapter. They compute something else in
silence. Up to 0.13 one key serves both patterns; up to 0.7 there is no rsLoRA; from 0.18 on what is trained of a table
that scales is scaled as well.
What to do: `fix --for` says the scale in lora_alpha, names the patterns in full, or gives all layers one scale.
References: tuners/lora/model.py: _create_and_replace; utils/other.py: get_pattern_key; tuners/tuners_utils.py:
BaseTunerLayer._get_embed_scale.
""")
MISSING_LAYER = Code("CD312", "missing-layer", """
The config targets a layer that the file has no tensors for.
Why: PEFT saves every layer that it adapts. Something else left the tensors out, or widened the targets.
Who stops: nobody, of a LoRA: such a layer is zero. One that is initialised at random, or from the base, every release.
An AdaLoRA layer that was pruned is zero from 0.12 on, and random in 0.5 – 0.11.
What to do: if the layer was trained, its tensors were lost; else nothing. `fix --for` takes pruned layers off the
targets.
References: tuners/adalora/layer.py: reset_lora_parameters; tuners/tuners_utils.py: inject_adapter.
""")
LAYERS_OPTIONS = Code("CD313", "layers-options", """
layers_to_transform and layers_pattern do not go with each other, or with a pattern in target_modules.
Why: they number the layers of a list, which says nothing beside a pattern for whole names.
Who stops: beside a pattern 0.6 and newer (AdaLoRA: 0.11), a layers_pattern alone 0.14 and newer.
What to do: `fix --for` names the targets in full.
References: tuners/lora/config.py: LoraConfig `__post_init__`.
""")
LAYER_KIND = Code("CD314", "layer-kind", """
LoRA on a kind of layer that a release does not adapt: an embedding, a convolution, attention as a whole, or DoRA there.
Why: each kind of layer has a class of its own in PEFT, and these came one by one.
Who stops: the releases before the kind came, "Target module … is not supported": Embedding and Conv1D 0.3, Conv2d 0.4,
Conv3d 0.14, Conv1d and MultiheadAttention 0.15; DoRA on Conv2d 0.10, Embedding 0.13, Conv3d 0.14, Conv1d 0.16.
lora_bias on an Embedding works in none. Trained tokens of a head: 0.16 and 0.17.
What to do: use a release that has it.
References: tuners/lora/layer.py: dispatch_default; tuners/lora/dora.py; huggingface/peft#2863.
""")
ADALORA_CONVOLUTION = Code("CD315", "adalora-convolution", """
AdaLoRA on a Conv2d.
Why: AdaLoRA has such layers since 0.20 only. Their tensors look like those of a Linear, so only the base model tells
for sure.
Who stops: 0.19 and older, which adapt Linear and GPT-2's Conv1D alone.
What to do: name the base model, which tells; or use 0.20 or newer.
References: tuners/adalora/layer.py; tuners/adalora/model.py: _create_new_module.
""")
NO_LAYERS = Code("CD316", "no-layers", """
The file has no factors of any layer, or target_modules is empty.
Why: the state dict of another model was saved, or a filter left the factors out.
Who stops: with an empty target_modules, or none that the base model has, every PEFT release. Where the config targets
layers, they stay as initialised. Without the base model it is undecided.
What to do: save the adapter again, with its tensors.
References: tuners/tuners_utils.py: inject_adapter.
""")
DEFAULT_TARGETS = Code("CD317", "default-targets", """
target_modules is null.
Why: each release then looks the base model up in a table of its own, and the tables differ.
Who stops: all, where the base is no model of transformers, "Please specify `target_modules`". Otherwise it is
undecided: the tables differ.
What to do: write the names of the adapted layers into target_modules.
References: utils/constants.py: TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.
""")
UNPROVEN_OPTION = Code("CD318", "unproven-option", """
An option whose tensors or arithmetic changed between releases, or hang on the base model.
Why: what one release saved another may compute otherwise, and no load has shown that it does not.
Who stops: undecided for all but the release that saved it. A saved arrow_config loads in no release that has it; a
layer_replication works on a few models of transformers only, and from transformers 4.56 on not with the cache of those
whose config lists the kind of each layer (Gemma 2 and 3, Qwen2 and 3 and others), where the base model tells that.
Tokens that were trained of a head and of the table of words that it is tied to have one delta from 0.19 on.
What to do: load it in the release that saved it, or generate with use_cache=False.
References: tuners/lora/arrow.py, "'dict' object has no attribute 'top_k'"; tuners/tuners_utils.py: replicate_layers;
huggingface/peft#2870.
""")
IGNORED_EXCLUSION = Code("CD319", "ignored-exclusion", """
exclude_modules is not read by old releases, and what it excludes does not start at zero.
Why: a release without the key adapts what is excluded as well, and finds no tensors for it.
Who stops: 0.5 for AdaLoRA, and 0.5 and older where init_lora_weights is false. They adapt what is excluded and leave it
at random numbers.
What to do: use 0.6 or newer, or name the adapted layers in full.
References: tuners/adalora.py: reset_lora_parameters (lora_E is drawn from N(0, 0.02)).
""")
NOT_IN_BASE = Code("CD320", "not-in-base", """
The base model does not have layers that the file has tensors for.
Why: PEFT does not ask that each tensor finds a module, and a model of another class or depth has other modules.
Who stops: nobody where it is some: they never computed anything there. Where it is all of them, every PEFT release does
nothing, in silence: the adapter is of another model, or its names are of another class. Names that begin with a block
(`layers.0`) are undecided where a class with a head was adapted: all of transformers put a name before.
What to do: name the right base model, or rename the tensors.
References: utils/save_and_load.py: set_peft_model_state_dict, which reports unexpected keys at most.
""")
OTHER_SIZE = Code("CD321", "other-size", """
The tensors do not have the size of the base model's weights; or a copy of a weight does not have that of the factors
beside.
Why: it is another model, or another size of it, or the file was changed. An embedding or a head has more rows where
tokens were added, and is then saved with any adapter.
Who stops: every PEFT release, "size mismatch". Another number of rows of an embedding or a head is undecided: the model
may be resized before the load.
What to do: name the right base model; or give it as many tokens, by resize_token_embeddings, before the load.
References: torch.nn.Module.load_state_dict; utils/save_and_load.py: get_peft_model_state_dict, save_embedding_layers.
""")
UNSUPPORTED_TARGET = Code("CD322", "unsupported-target", """
target_modules also names a module that cannot be adapted: one that holds layers, or has a vector for a weight, or whose
weight target_parameters names, too, or whose weight alone a Mamba reads.
Why: a name in a list is held against the ends of all names, so a short one reaches more than was meant. A LoRA on the
out_proj or conv1d of a Mamba computes nothing where its fast kernels run.
Who stops: the releases whose matching reaches it, "Target module … is not supported"; of a Mamba 0.16 and newer,
"is incompatible with Mamba-based models".
What to do: name the adapted layers in full.
References: tuners/lora/model.py: _create_new_module; tuners/tuners_utils.py: check_target_module_exists,
BaseTuner._inject_parameters, _check_lora_target_modules_mamba.
""")
MISSING_SAVED = Code("CD323", "missing-saved", """
modules_to_save or trainable_token_indices is set, and the file has no tensors for it, or not all: the weight alone of a
module that has a bias in another block.
Why: PEFT saves such modules whole, beside the factors. A filter for `lora` leaves them out.
Who stops: 0.15 and newer raise KeyError, if the base model has the module; older ones keep the base model's own, which
may be what was meant. A classifier names both heads that its class may have, and has one. A part that only another
block has is undecided without the base model.
What to do: save again, or take the name off the list where the module was never trained.
References: utils/save_and_load.py: set_peft_model_state_dict; huggingface/peft#2027.
""")
UNTARGETED_LAYERS = Code("CD324", "untargeted-layers", """
The file has tensors of layers that the config does not target.
Why: PEFT never saves that: the config or the file was changed.
Who stops: every PEFT release, in silence: trained tensors are not applied. Undecided for those that do target them, and
of one layer outside the blocks, as a head, where the base model does not tell whether it has one.
What to do: name the layers in target_modules, or fetch the config that was saved with the tensors.
References: utils/save_and_load.py: get_peft_model_state_dict; loads in 18 releases.
""")
HEAD_AMONG_TARGETS = Code("CD325", "head-among-targets", """
A module that is saved whole is adapted by LoRA as well: a classifier's head under all-linear, or named so.
Why: the module is wrapped twice, to be saved and to be adapted, and releases differ in how the weight inside is called.
Who stops: most. Its own weight is `.weight` up to 0.6 and `.base_layer.weight` from 0.7 on; 0.13 refuses to wrap it
twice; 0.15 asks for other names.
What to do: use a release near the one that saved it.
References: utils/other.py: ModulesToSaveWrapper.check_module; utils/save_and_load.py: set_peft_model_state_dict; loads
of BERT, RoBERTa and Qwen2 in 18 releases.
""")
TARGET_WITHIN_SAVED = Code("CD326", "target-within-saved", """
target_modules or modules_to_save names a part of a module in modules_to_save.
Why: which comes first, the copy of the module or the adapter in it, was changed between releases. A name in
modules_to_save is of every module that ends with it: `embeddings` is of word_embeddings in it, too.
Who stops: 0.6 – 0.13, "ModulesToSaveWrapper has no attribute". Older ones adapt the part and then save it, newer ones
leave it to the copy. Of a part that modules_to_save names 0.14 may load another copy; 0.15 and newer raise KeyError.
What to do: name the targets in full, without that part.
References: tuners/tuners_utils.py: inject_adapter; utils/other.py: _set_trainable.
""")
GROUPED_CONVOLUTION = Code("CD327", "grouped-convolution", """
LoRA on a convolution in groups, or on one that may be.
Why: the shape of lora_B changed, and no key of the config says which one was meant.
Who stops: from 0.16 on lora_B is in groups as well, and so smaller; each side rejects what the other saved. Up to 0.6
no tensors fit.
What to do: use a release of the side that saved it. The base model tells whether there are groups.
References: tuners/lora/layer.py: _ConvNd.update_layer.
""")
RENAMED_MODEL = Code("CD328", "renamed-model", """
The layers lie in the language model of a vision-language model, which transformers 4.52 renamed
(`language_model.model.` became `model.language_model.`), or are single experts, of which transformers 5 makes one.
Why: the file has the names that transformers had when it was trained, and another release of it has others.
Who stops: PEFT up to 0.14 is undecided for the new names, 0.15 for the old ones, 0.19 and older for experts of a model
that transformers 5 saved: it hangs on transformers. 0.20 and newer put experts together there, and stay undecided where
that is not exact (an expert or a part is missing, other ranks, rsLoRA).
What to do: load it with PEFT 0.16 or newer, which finds the old names as well.
References: loads on LLaVA; utils/save_and_load.py: set_peft_model_state_dict.
""")
AMBIGUOUS_PATTERN = Code("CD329", "ambiguous-pattern", """
Several keys of alpha_pattern name one layer, with other values.
Why: PEFT takes the first that matches, and sorts the keys when it saves them, so that it is lost which was first.
Who stops: every release is undecided; 0.15 to 0.20 did not compute what they had saved.
What to do: keep the key that was meant, or name each layer in full.
References: loads on Qwen2; config.py: save_pretrained.
""")
ANOTHER_BASE = Code("CD330", "another-base", """
The model that `--base` names is not the one that the config says the adapter was trained on, or another commit or a
quantisation of it.
Why: a model of the same sizes takes the tensors, and computes something else with them.
Who stops: no release notices. Undecided where both are known by their ids on the Hub and differ; a quantisation in the
name is a note: on the weights before it the adapter computes nearly the same.
What to do: name the right base model, or correct base_model_name_or_path.
References: peft_model.py: PeftModel.from_pretrained, which looks at neither.
""")
COSTLY_PATTERN = Code("CD331", "costly-pattern", """
A regular expression of the config takes too long to match, or is too large, to say which layers it names; or it is
none, as `*.q_proj` in rank_pattern.
Why: PEFT gives it to Python's `re`, which has no limit: some patterns of twenty characters take longer than anyone
waits. A repeat within a repeat is such a pattern; any other has a tenth of a second here, and all of an adapter half.
At one that is none a load stops, unless a key before it names each layer.
Who stops: every release is undecided. One that reads the key may hang when it loads the adapter, or stop at it.
What to do: name the layers in a list, or write the pattern without a repeat within a repeat.
References: tuners/tuners_utils.py: check_target_module_exists; utils/other.py: get_pattern_key.
""")
ADALORA_TARGET_KIND = Code("CD332", "adalora-target-kind", """
The targets of an AdaLoRA match a module of the base model for which AdaLoRA has no layer: a Conv1d, a Conv3d, an
embedding.
Why: a name as conv1 or embed_tokens was written into the config, or into the list of a script, and no release has saved
such a layer.
Who stops: every PEFT release, "Target module … is not supported. Currently, only `torch.nn.Linear` and `Conv1D`"
(and `Conv2d`, from 0.20 on).
What to do: `fix --base` takes the names off that match such modules alone, or names the layers of the file in full.
References: tuners/adalora/model.py: AdaLoraModel._create_new_module.
""")
READ_MODULE = Code("CD333", "read-module", """
A module that is saved whole or adapted, of which the model reads an attribute: DeBERTa's rel_embeddings, T5's wo,
Whisper's convolutions.
Why: PEFT wraps such a module, and the wrapper had no attributes of what is in it at first.
Who stops: at the first run, "'ModulesToSaveWrapper' object has no attribute": `weight` up to 0.7, others up to 0.13.
Every PEFT release, where it is adapted and another than `weight` is read: "'Conv1d' object has no attribute 'stride'".
What to do: use a release from then on; an adapter of such a module cannot have been trained with this model.
References: utils/other.py: ModulesToSaveWrapper; tuners/tuners_utils.py: BaseTunerLayer.
""")
TASK_OF_TEXT = Code("CD334", "task-of-text", """
A task_type that the model is not for: Whisper, which has no input_ids, with SEQ_2_SEQ_LM; CLIP's text model, which
takes no inputs_embeds; a class for tokens with CAUSAL_LM.
Why: the class that PEFT has for each task calls the model with input_ids, inputs_embeds and labels, whatever that
takes, and those for text that is generated ask the model how it generates.
Who stops: every PEFT release at the first call, "forward() got an unexpected keyword argument 'input_ids'", some models
with transformers 4.46 and older alone; with transformers 4.50 and newer "object has no attribute
'prepare_inputs_for_generation'". What calls the model beside it, as generate() does, is not stopped.
What to do: take task_type off, and load it with PeftModel: the layers are the same.
References: peft_model.py: PeftModelForSeq2SeqLM.forward, PeftModelForCausalLM; huggingface/peft#1988.
""")

# Tensors

FOREIGN_PREFIX = Code("CD401", "foreign-prefix", """
Names of tensors do not start as PEFT's do: a prefix is missing, doubled, or a wrapper's (DDP, FSDP, torch.compile).
Why: PEFT's names begin with `base_model.model.`. A state dict that was taken from a wrapper has the wrapper's part in
its names, and one of the bare model lacks PEFT's.
Who stops: every PEFT release ignores them, so the adapter does nothing. From 0.14 on there is a warning.
What to do: `fix --for` gives them PEFT's names.
References: utils/save_and_load.py: set_peft_model_state_dict.
""")
ADAPTER_NAME_IN_KEY = Code("CD402", "adapter-name-in-key", """
Names of tensors have an adapter's name in them (`.lora_A.default.weight`), as in memory.
Why: save_pretrained takes that name out; a state dict that was saved as it is keeps it.
Who stops: 0.20 and older ignore them in silence, and every release those of another name than "default".
What to do: `fix --for` gives them PEFT's names. Save with save_pretrained.
References: utils/save_and_load.py: set_peft_model_state_dict.
""")
MISSING_FACTOR = Code("CD403", "missing-factor", """
A layer has one of its factors and not the other.
Why: what a layer adds is the product of both. A filter or a lost shard took one of them.
Who stops: every PEFT release: the missing factor stays as initialised, at random where it is lora_A.
What to do: fetch the whole file, or save the adapter again. The factor is lost.
References: tuners/lora/layer.py: LoraLayer.reset_lora_parameters.
""")
MISSING_PART = Code("CD404", "missing-part", """
DoRA's magnitudes or lora_bias are missing, or the magnitudes have the name that they have in memory.
Why: the option gives each layer one more tensor, which a filter for the factors leaves out.
Who stops: 0.9 and newer (lora_bias: 0.14) leave them as initialised. Under the name in memory 0.9 – 0.11 ignore them.
What to do: fetch the whole file, or set use_dora or lora_bias to false where there was none.
References: utils/save_and_load.py: set_peft_model_state_dict, which renames lora_magnitude_vector from 0.12 on.
""")
MANGLED_KEY = Code("CD405", "mangled-key", """
A module's own name holds "weight", "lora_" or the name of a saved module, and older releases change it there, too.
Why: PEFT puts the adapter's name, and that of a saved module's copy, into a tensor's name by replacing text, wherever
in the name that text is: with layernorm in modules_to_save also in `layernorm_before.bias`.
Who stops: 0.3 – 0.17 for "weight" and "lora_" in the names of factors; 0.3 – 0.14 for names in modules_to_save, in
those of factors, of biases and of whole modules, whatever the method. The tensors match nothing and are ignored in
silence.
What to do: use a newer release.
References: utils/save_and_load.py: set_peft_model_state_dict.
""")
FACTOR_DTYPE = Code("CD406", "factor-dtype", """
A factor has a type that no release computes with: whole numbers, or one that torch has no name for.
Why: numbers are copied into the module's own type as they stand, without the scales of a quantised factor.
Who stops: every PEFT release turns whole numbers into something else in silence (int8 becomes zero). For other types it
is undecided.
What to do: save the factors in a floating type. A quantised factor needs its scales.
References: torch.nn.Module.load_state_dict, which copies into the module's own type.
""")
WEIGHT_SUFFIX = Code("CD407", "weight-suffix", """
The names of factors end otherwise than PEFT's.
Why: LoRA's factors are modules and have a `.weight`; those of an Embedding and of AdaLoRA are bare parameters and have
none. A tool that renames all alike gets one kind wrong.
Who stops: every PEFT release ignores them in silence.
What to do: rename the tensors to the ending that the message names.
References: tuners/lora/layer.py: LoraLayer; tuners/adalora/layer.py: AdaLoraLayer.
""")
UNAPPLIED_TENSOR = Code("CD408", "unapplied-tensor", """
The file has trained tensors that a release does not apply: DoRA's magnitudes without use_dora, trained tokens without
trainable_token_indices, whole modules by their names in memory; or weights that layers adapt (`base_layer.weight`),
which some releases load over the model's.
Why: what the config does not switch on has no module to go to, and PEFT does not ask that each tensor finds one. The
weight of an adapted layer is called `base_layer.weight` from 0.7 on, and PEFT saves that of embeddings and heads alone.
Who stops: every PEFT release, in silence; from 0.15 on a module in modules_to_save that is not found is a KeyError.
Weights that layers adapt: 0.6 and older, which ignore them, where 0.7 or newer saved the adapter; 0.7 and newer, where
an older one did; undecided where the config does not tell which it was.
What to do: set the option with which it was trained, or give the tensors the names that PEFT saves. With the weights of
layers use a release of the same side of 0.7 as the one that saved it; where they are the model's own, take them out.
References: utils/save_and_load.py: set_peft_model_state_dict; tuners/tuners_utils.py: BaseTunerLayer; loads in 18
releases.
""")
MEGATRON_NAMES = Code("CD409", "megatron-names", """
The adapted layers have Megatron's names (linear_qkv), which no model of transformers has.
Why: PEFT saves the names of the model that it adapted, and that was one of Megatron Core, as in ms-swift.
Who stops: every PEFT release, where the model is one of transformers, whose names the targets are not.
What to do: export the checkpoint that it was saved from, which writes an adapter of PEFT with transformers' names.
Megatron-Bridge (0.4 and newer) does so by AutoBridge.export_adapter_ckpt, ms-swift by `megatron export`; a scan says
how they are typed. Or load it on Megatron's model.
References: Megatron-LM megatron/core/transformer/attention.py: SelfAttention.linear_qkv; modelscope/ms-swift#5693;
Megatron-Bridge models/conversion/auto_bridge.py: AutoBridge.export_adapter_ckpt; ms-swift docs, LoRA Training.
""")
NON_FINITE = Code("CD410", "non-finite", """
Weights are NaN or infinite, which is seen with `--values`, or the scale of a layer is, so that no output is a number.
Why: the training diverged (a loss of NaN, often in fp16), or the file was damaged. One such number is in every product
that it is part of, and a layer hands it to all that come after.
Who stops: every release and server loads it and computes NaN. PEFT raises in a merge with safe_merge=True alone; LoRAX
refuses a .bin. A fix writes none.
What to do: take a checkpoint from before the loss was NaN, or train again, in bf16 or with a smaller learning rate.
References: tuners/lora/layer.py: Linear.merge; loads in 6 releases; predibase/lorax#81, huggingface/diffusers#5316.
""")
DOES_NOTHING = Code("CD411", "does-nothing", """
Every layer's delta is zero, so that the model with the adapter is the model without it.
Why: lora_B is zero before the first step of a training. It still is where no gradient came to it, where it was saved
from other processes than those that trained it, or too early. Or lora_alpha is 0, as a merging script wrote it.
Who stops: none; each release loads it and computes what was saved. A lora_alpha of 0 is seen in the config, a zero
factor with `--values`.
What to do: look whether the loss fell in training, and save from the model that was trained; where lora_alpha is 0, set
it to the one of the training.
References: tuners/lora/layer.py: LoraLayer.reset_lora_parameters and LoraLayer.update_layer; MakazhanAlpamys/Soup#335.
""")
ZERO_LAYERS = Code("CD412", "zero-layers", """
Some layers have a factor that is all zero, so that their delta is, too. Seen with `--values`.
Why: nothing was trained there, as in experts that no token came to; or they were given zeros so that a release or a
server takes the adapter.
Who stops: none.
What to do: nothing, if these layers were not to be trained; else look whether gradients came to them.
References: tuners/lora/layer.py: LoraLayer.reset_lora_parameters.
""")
LOST_SHARD = Code("CD413", "lost-shard", """
In every layer only one of N equal parts of lora_B's rows (or of lora_A's columns) is not zero. Seen with `--values`.
Why: the training divided the factors among N processes (FSDP2, tensor parallelism), and one of them saved what it had:
the rest was never written, or reached by no gradient.
Who stops: undecided: every release loads it, and computes what is in the file, which may be part of what was trained.
What to do: save again so that the parts are gathered, or put the shards of the checkpoint together; the rest is not in
this file.
References: axolotl-ai-cloud/axolotl#3772, huggingface/accelerate#4206.
""")
FP16_OVERFLOW = Code("CD414", "fp16-overflow", """
The weights have numbers beyond 65504, the largest of fp16, which become infinite in a cast to it. Seen with `--values`.
Why: bf16 and fp32 hold larger numbers. Few trainings end so large, and one that does may be about to diverge.
Who stops: undecided: 0.8 and 0.9 cast factors to the type of the model, and an fp16 one then gives infinity; 0.6, and
0.13 and newer, keep them in fp32, but cast whole modules. Servers cast to the type that they run in.
What to do: run the model in bf16 or fp32.
References: tuners/tuners_utils.py: cast_adapter_dtype; loads of an fp16 model in 6 releases.
""")

# Methods

UNKNOWN_METHOD = Code("CD501", "unknown-method", """
peft_type is no method of PEFT.
Why: PEFT looks the word up as it stands, and its words are in upper case: "lora" is none.
Who stops: every PEFT release, KeyError.
What to do: write the right name into the config.
References: mapping.py: PEFT_TYPE_TO_CONFIG_MAPPING.
""")
METHOD_OF_OTHER_RELEASES = Code("CD502", "method-of-other-releases", """
Some releases do not have the method.
Why: it came later, or went: BONE was removed in 0.19, where MiSS took its place.
Who stops: the releases without it, KeyError.
What to do: use a release that has it.
References: mapping.py: PEFT_TYPE_TO_CONFIG_MAPPING.
""")
UNKNOWN_TASK = Code("CD503", "unknown-task", """
task_type is no task of PEFT.
Why: the word chooses the class around the model. Older releases take the plain one for a word that they do not know,
newer ones check it.
Who stops: 0.14 and newer, "Invalid task type"; CPT, C3A and trainable tokens 0.18 and newer, RandLoRA 0.20 and newer.
What to do: `fix --for` sets it to null.
References: config.py: PeftConfigMixin `__post_init__`; utils/peft_types.py: TaskType.
""")
TASK_OF_PROMPT = Code("CD504", "task-of-prompt", """
A prompt with a task_type that not every release loads it for, or under which it is not used.
Why: the class of the task puts the prompt before the input; PeftModel itself does not.
Who stops: CPT without CAUSAL_LM is rejected from 0.18 on. A prompt for a classifier is rejected by 0.13, one for tokens
or for answers by 0.16 as well. A prefix for SEQ_2_SEQ_LM hangs on the release of transformers from 0.10 on. Without a
task it is undecided.
What to do: set the task_type that the prompt was trained with.
References: tuners/cpt/config.py: `__post_init__`; peft_model.py: PeftModelForCausalLM.forward; loads in 20 releases.
""")
SHAPE_MISMATCH = Code("CD505", "shape-mismatch", """
The shapes of tensors are not those that PEFT builds from the config.
Why: PEFT builds the tensors by the config, and then loads the file into them. One of the two was changed, or is another
adapter's.
Who stops: every PEFT release, "size mismatch". Up to 0.14 LoHa and LoKr read their patterns otherwise; up to 0.20 VeRA
and PVeRA make their projections anew.
What to do: set the config's sizes to those of the tensors (r, num_virtual_tokens, feedforward_modules …).
References: update_layer in tuners/METHOD/layer.py; torch.nn.Module.load_state_dict.
""")
MISSING_TENSOR = Code("CD506", "missing-tensor", """
A tensor is missing that the method has for each layer, or for all.
Why: a filter or a lost shard left it out, and PEFT does not ask for each one.
Who stops: every PEFT release leaves it as initialised, in silence up to 0.13. A prompt, VeRA's projection and FRoD's
are demanded: without them it raises.
What to do: fetch the whole file.
References: utils/save_and_load.py: set_peft_model_state_dict.
""")
TENSOR_WITHOUT_PLACE = Code("CD507", "tensor-without-place", """
A layer has tensors of the method that this config has no place for.
Why: an option that makes such tensors was on in training, and is off in the config.
Who stops: every PEFT release ignores them in silence.
What to do: compare the options of the config with those that the adapter was trained with.
References: update_layer in tuners/METHOD/layer.py.
""")
UNKNOWN_SIZE = Code("CD508", "unknown-size", """
The config has a word or null where PEFT wants the size of a layer or of a prompt.
Why: PEFT makes tensors of that size before it reads the file.
Who stops: every PEFT release where it is the size of a layer; for what layers share it is undecided.
What to do: write the number into the config.
References: update_layer in tuners/METHOD/layer.py.
""")
METHOD_WITHOUT_LAYERS = Code("CD510", "method-without-layers", """
No tensor in the file is one of the method's, so nothing is adapted.
Why: PEFT finds the tensors by a prefix in their names. The file is another adapter's, or peft_type was changed.
Who stops: every PEFT release loads it, and leaves each layer as it was initialised.
What to do: fetch the right file, or set peft_type to the method of the tensors.
References: utils/save_and_load.py: set_peft_model_state_dict, which looks for the prefix of the method.
""")
NULL_VALUE = Code("CD511", "null-value", """
A config value is null where PEFT computes with a number or a word.
Why: the config was written by hand, or by a program that has no value for the key.
Who stops: the releases that know the key, with a TypeError.
What to do: set the value that the adapter was trained with.
References: update_layer in tuners/METHOD/layer.py; tuners/METHOD/config.py.
""")
RANK_ZERO = Code("CD512", "rank-zero", """
The config's `r` is 0 or less, so no layer has a rank.
Why: PEFT makes tensors with `r` rows, and refuses to make none.
Who stops: every PEFT release, "`r` should be a positive integer value".
What to do: set `r` to the rank of the tensors.
References: update_layer in tuners/METHOD/layer.py.
""")
ODD_VALUE = Code("CD513", "odd-value", """
A config value is of another kind than its default, a word or a range that PEFT does not name.
Why: PEFT checks few values, so what it makes of another shows only in a load.
Who stops: undecided for the releases that know the key; a bias that is no word for the method, those that raise on it.
What to do: set the value that the adapter was trained with, or load it and compare.
References: tuners/METHOD/config.py, the defaults of each release; for a bias tuners/tuners_utils.py:
_mark_only_adapters_as_trainable.
""")
ADAPTER_NAME_IN_METHOD_KEY = Code("CD514", "adapter-name-in-method-key", """
Names of tensors have an adapter's name in them (`.lily_A.default.weight`), as in memory.
Why: save_pretrained takes that name out; a state dict that was saved as it is keeps it.
Who stops: 0.20 and older ignore them in silence. 0.21 takes them under the name "default", save where a method's keys
are renamed in another way.
What to do: save with save_pretrained, or take the name out.
References: utils/save_and_load.py: set_peft_model_state_dict.
""")
UNCLEAR_TARGET = Code("CD515", "unclear-target", """
target_modules, or what narrows it, leaves out layers that have tensors, or says too little to tell.
Why: PEFT adapts what target_modules matches in the model, and the file does not have the model's other names.
Who stops: undecided: it hangs on the base model, or on how a release numbers its layers.
What to do: name the adapted layers in target_modules. `fix` names IA3's feedforward_modules by the shapes of the
tensors, where they are null.
References: tuners/tuners_utils.py: check_target_module_exists.
""")
UNEVEN_LAYERS = Code("CD516", "uneven-layers", """
Layers of one name do not all have the same tensors, so some may be missing.
Why: a file that lost some looks so; a healthy one of a model with two kinds of blocks does, too.
Who stops: undecided: a layer that is missing would stay as it was initialised.
What to do: compare with the base model.
References: tuners/tuners_utils.py: inject_adapter.
""")
UNSAVED_BIAS = Code("CD517", "unsaved-bias", """
The config trains biases, and the file has none.
Why: up to 0.20 most methods do not save them.
Who stops: every PEFT release computes something else, also the one that saved it.
What to do: save again with 0.21 or newer, or set `bias` to "none" where none was trained.
References: tuners/tuners_utils.py: BaseTuner._get_learnable_bias_state_dict, which is of 0.21.
""")
UNSAVED_MODULE = Code("CD518", "unsaved-module", """
modules_to_save names a module that the file does not have, or not whole; or the head that a prompt's task trains is not
there, or not whole.
Why: PEFT trains a copy of such a module, and a filter for the adapter's own tensors leaves it out. With a prompt the
head of a classifier, or of one that finds answers, is trained and saved without being named.
Who stops: 0.15 and newer raise KeyError; older ones that know the key take a fresh module, or the base model's. Beside
a prompt the same for a head that is not whole; without any head 0.17 and newer, and older ones are undecided. A bias
that the class may not have, or a part that only another block has, is undecided as well.
What to do: save again, or take the name off the list where the module was never trained.
References: utils/save_and_load.py: set_peft_model_state_dict.
""")
CONTRADICTING_SIZES = Code("CD519", "contradicting-sizes", """
Two config keys say one size, and both are set, or neither is: BOFT's block number and size, OFT's `r` and block size.
Why: each follows from the other and the size of the layer, so PEFT wants exactly one.
Who stops: every PEFT release.
What to do: set one of them to 0.
References: tuners/boft/config.py and tuners/oft/config.py: `__post_init__`.
""")
STRANGE_TENSOR = Code("CD520", "strange-tensor", """
The file has tensors that are none of the method's, nor of what the config trains beside it.
Why: PEFT loads the file into the whole model, so that a tensor of another name may change the model as well.
Who stops: undecided. One that names a parameter of the base model overwrites it; any other is ignored.
What to do: compare with the base model. They may be part of what the adapter computes.
References: utils/save_and_load.py: set_peft_model_state_dict, which loads into the whole model and is not strict.
""")
OFT_GENERATION = Code("CD521", "oft-generation", """
OFT was written anew twice: its files are of 0.7 – 0.13, of 0.14 – 0.15, or of 0.16 and newer.
Why: each generation has keys or tensors of its own, under one peft_type.
Who stops: the releases of another generation. 0.14 and newer want oft_block_size; 0.16 – 0.20 reject the older oft_r,
0.21 ignores it. From 0.18 on the Cayley-Neumann series ends elsewhere.
What to do: use a release of the generation that saved it.
References: tuners/oft/config.py: OFTConfig.check_kwargs; tuners/oft/layer.py: _cayley_batch.
""")
SCALE_BY_RELEASE = Code("CD522", "scale-by-release", """
LoKr or LoHa whose layers releases scale by different numbers.
Why: whether alpha is divided by `r`, and which key of a pattern is a layer's, was changed between releases.
Who stops: the releases that scale otherwise than the one that saved it. LoKr leaves out alpha / r up to 0.13; up to
0.14 both match rank_pattern and alpha_pattern by one key.
What to do: use a release that scales as the one that saved it.
References: tuners/lokr/layer.py: get_delta_weight; tuners/loha/model.py: _create_and_replace.
""")
LOKR_DECOMPOSITION = Code("CD523", "lokr-decomposition", """
LoKr splits its second matrix where `r` is below half of its larger side, and the file has it the other way.
Why: whether PEFT splits the matrix follows from `r` alone, and the config's is not the one of the training.
Who stops: every PEFT release ignores the tensors of that matrix.
What to do: set `r` to the one that it was trained with.
References: tuners/lokr/layer.py: update_layer.
""")
CONVOLUTION = Code("CD524", "convolution", """
A convolution that some releases do not adapt, or adapt in another way.
Why: methods got convolutions one kind at a time, and BOFT's numbers were turned round in 0.14.
Who stops: IA3: 2d before 0.6, 3d before 0.14. LoHa and LoKr: 1d before 0.18. BOFT: the side of 0.14 that did not save
it, since boft_s was turned round there.
What to do: use a release near the one that saved it.
References: tuners/ia3/model.py and tuners/lycoris_utils.py: _create_new_module; tuners/boft/layer.py: Conv2d.
""")
FEEDFORWARD_UNTARGETED = Code("CD525", "feedforward-untargeted", """
IA3's feedforward_modules is not a part of target_modules.
Why: IA3 scales the input of these modules and the output of the others, and checks that it adapts them at all.
Who stops: 0.6 and newer, "`feedforward_modules` should be a subset of `target_modules`".
What to do: `fix` names the modules in both, as the shapes of the tensors say; where these tell nothing, do so by hand.
References: tuners/ia3/config.py: `__post_init__`.
""")
METHOD_BY_RELEASE = Code("CD526", "method-by-release", """
A small difference between releases that is the method's own; the message says which.
Why: the method was changed in a detail, or draws numbers with each load.
Who stops: VeRA: 0.11, where layers have several shapes. PSOFT (lowrank) and TinyLoRA: 0.19, which draws from another
seed with each load. AdaptionPrompt: 0.8 and older with a newer transformers, and 0.9 where the model has fewer heads of
keys than of queries (num_key_value_heads), which is undecided without the base model. PVeRA with sample_at_inference:
all.
What to do: use another release. What the base model has to tell stays undecided.
References: tuners/vera/model.py: _find_dim; tuners/psoft/layer.py; tuners/tinylora/layer.py; tuners/pvera/layer.py;
tuners/adaption_prompt/utils.py: llama_compute_query_states; tuners/adaption_prompt/layer.py: AdaptedAttention.forward.
""")
MODULES_BESIDE_PROMPT = Code("CD527", "modules-beside-prompt", """
A prompt with modules_to_save, which goes together from 0.17 on.
Why: older releases do not make a copy of the module for the adapter.
Who stops: undecided for releases that do not know the key: they overwrite the base weight, which is another thing
where the model ties it to a second module.
What to do: use 0.17 or newer.
References: peft_model.py: load_adapter.
""")

# Servers

SERVER_FILES = Code("CD601", "server-files", """
The file of weights is damaged, missing, in shards, or of a format that a server does not read.
Why: each server looks for names and formats of its own.
Who stops: vLLM reads .safetensors, .bin and .pt, SGLang also any other name, llama.cpp .safetensors and .bin,
transformers and Ollama .safetensors only.
What to do: `fix --for` writes one adapter_model.safetensors.
References: loads in vLLM, SGLang, llama.cpp and transformers; Ollama's source.
""")
SERVER_CONFIG = Code("CD602", "server-config", """
The config lacks a value that a server reads, or has one that it cannot read.
Why: a server reads the config by code of its own, which does not have all defaults of PEFT's.
Who stops: vLLM, "Missing required configuration fields"; SGLang, KeyError; llama.cpp reads lora_alpha alone; Ollama
wants it whole.
What to do: `fix --for` fills in what is null, and gives all layers one rank and scale.
References: loads in vLLM, SGLang and llama.cpp; Ollama's source.
""")
SERVER_BIAS = Code("CD603", "server-bias", """
The config trains biases.
Why: vLLM has no biases in its LoRA, and goes by what the config says.
Who stops: vLLM, "Adapter bias is not supported".
What to do: `fix --for` says that there is no bias, where the file has none.
References: loads in vLLM.
""")
SERVER_MODULES_TO_SAVE = Code("CD604", "server-modules-to-save", """
modules_to_save names something other than a classifier's head.
Why: one model serves many adapters, and vLLM has no place for a module that one of them replaces.
Who stops: vLLM, "vLLM only supports modules_to_save being either None or …", by the config alone.
What to do: `fix --for` empties it where the file has no such tensor. Otherwise merge the module into the model.
References: loads in vLLM.
""")
NOT_LORA = Code("CD605", "not-lora", """
The adapter is not LoRA, and servers take LoRA only.
Why: a server adds the product of two factors to what a layer computes. Other methods do something else.
Who stops: vLLM, "is unsupported LoRA weight"; llama.cpp, "Not a lora_A or lora_B tensor"; SGLang, TGI and LoRAX by
peft_type.
What to do: `fix --for` makes LoRA of an AdaLoRA. Other methods have to be merged into the model.
References: loads in vLLM, SGLang, llama.cpp and transformers; the source of the others.
""")
SERVER_OPTION = Code("CD606", "server-option", """
An option of LoRA that a server refuses or ignores: DoRA, lora_bias, aLoRA, replicated layers, trained tokens, PiSSA …
Why: the option adds tensors or steps that the server's own LoRA does not have.
Who stops: vLLM refuses most ("vLLM does not yet support DoRA."); SGLang and llama.cpp ignore some in silence;
transformers drops DoRA's magnitudes and trained tokens.
What to do: merge the adapter into the model. `fix --for` changes an init that is without effect.
References: loads in vLLM, SGLang, llama.cpp and transformers.
""")
SERVER_SCALE = Code("CD607", "server-scale", """
A server takes one scale for all layers, which is not theirs.
Why: PEFT computes a scale for each layer (patterns, rsLoRA); a server computes one, from fewer keys.
Who stops: SGLang takes lora_alpha / r, llama.cpp, Ollama and TensorRT-LLM lora_alpha over the rank of the tensor, TGI
and LoRAX as PEFT without patterns. All compute something else in silence. llama.cpp takes a scale of 0 for 1.
What to do: `fix --for` gives all layers one rank and scale.
References: loads in SGLang and llama.cpp; the source of the others.
""")
SERVER_UNEVEN_RANK = Code("CD608", "server-uneven-rank", """
The layers do not all have the config's rank.
Why: the server puts the factors of several layers into one tensor, which has one rank.
Who stops: SGLang, "Sizes of tensors must match"; TGI and LoRAX stack the ranks. Where no rank_pattern says so, it is
undecided for vLLM and llama.cpp which scale was meant.
What to do: `fix --for` gives all layers one rank by zeros.
References: loads in SGLang, vLLM and llama.cpp; the source of TGI and LoRAX.
""")
SERVER_TARGETS = Code("CD609", "server-targets", """
target_modules is not a list of names that SGLang knows.
Why: SGLang sets memory aside for the names in target_modules before it reads the tensors.
Who stops: SGLang, "Only 'all' or 'all-linear' can be used as the string for target module", or "incompatible with the
current LoRA memory pool configuration".
What to do: `fix --for` lists the targets.
References: loads in SGLang.
""")
SERVER_FUSED_GROUP = Code("CD610", "server-fused-group", """
A module that a server fuses with others (q, k and v; gate and up) has no tensors, and others of its group have.
Why: the server multiplies the whole group at once, and so puts the factors of its modules together.
Who stops: SGLang: q without v is a KeyError, k or v without q and up without gate "Cannot find target module name".
What to do: `fix --for` adds pairs of zeros.
References: loads in SGLang.
""")
SERVER_PARTIAL_TYPE = Code("CD611", "server-partial-type", """
A kind of module is adapted in some layers only.
Why: the server keeps a kind of module for all layers or for none.
Who stops: TGI and LoRAX drop it in all layers, without an error.
What to do: add pairs of zeros for the layers without it.
References: the source of TGI and LoRAX.
""")
SERVER_KEY = Code("CD612", "server-key", """
The names of tensors are not those that a server looks for: another ending, another prefix, or a wrapper's.
Why: each server takes the names apart in its own way, and most expect PEFT's.
Who stops: vLLM, "is unsupported LoRA weight"; llama.cpp, "Can not map tensor"; transformers, and vLLM for a prefix,
ignore the tensors in silence.
What to do: `fix --for` gives them PEFT's names.
References: loads in vLLM, SGLang, llama.cpp and transformers.
""")
SERVER_FACTOR = Code("CD613", "server-factor", """
A factor is missing, empty, flat, of whole numbers, or does not agree with its partner.
Why: what a layer adds is the product of both factors, so they have to be there and of one rank.
Who stops: most, each in its own way: vLLM raises a TypeError without lora_B and takes factors without a row for zero;
SGLang and llama.cpp fail an assertion; some drop the layer in silence.
What to do: what `scan` says of PEFT comes first: a lost factor stays lost, a rank of 0 can be filled with zeros.
References: loads in vLLM, SGLang, llama.cpp and transformers.
""")
SERVER_TENSOR = Code("CD614", "server-tensor", """
The file has tensors that are no factor: a bias, a norm, a head, trained tokens, DoRA's magnitudes.
Why: a server's LoRA is factors and nothing else, as one model serves many adapters.
Who stops: vLLM and llama.cpp, "is unsupported LoRA weight", "Not a lora_A or lora_B tensor"; SGLang and transformers
drop some in silence. Copies of the base model's embeddings are skipped.
What to do: merge the adapter into the model.
References: loads in vLLM, SGLang, llama.cpp and transformers.
""")
SERVER_RANK_LIMIT = Code("CD615", "server-rank-limit", """
The rank is above the limit of the server, which `--max-rank` names. Without one none is assumed.
Why: the server sets memory aside for adapters when it starts, by that limit.
Who stops: vLLM, "LoRA rank 32 is greater than max_lora_rank 16"; SGLang, "incompatible with the current LoRA memory
pool configuration".
What to do: start the server with a higher limit, or trim zeros off the rank with `fix --trim`.
References: loads in vLLM and SGLang.
""")
SERVER_MODEL = Code("CD616", "server-model", """
The base model is of a class that a server has no adapters for, or that its tables do not tell.
Why: a server has LoRA on a class only where its code provides for it.
Who stops: vLLM, "LoRA is not supported for", on classes such as BLOOM's, Falcon's, GPT-2's and StableLM's; llama.cpp,
"is not supported", on OPT's; Ollama takes adapters of llama and gemma2 only. Undecided on classes in no table.
What to do: use another server, or merge the adapter into the model. Where it is undecided, `fix` writes all the same:
load the result once, and compare.
References: loads in vLLM, SGLang, llama.cpp and transformers; `docs/servers.md` has the classes; Ollama's source.
""")
SERVER_NOT_IN_BASE = Code("CD617", "server-not-in-base", """
The base model has no module of that name, or none at that place.
Why: the adapter is of another model, or of a class that gives its modules other names.
Who stops: vLLM, "expected target modules in …", for a name that no module ends with, and in silence for one elsewhere;
llama.cpp, Ollama and TensorRT-LLM reject both; SGLang a layer number beyond the model's.
What to do: name the right base model, or rename the tensors.
References: loads in vLLM, SGLang and llama.cpp; the source of the others.
""")
SERVER_SIZE = Code("CD618", "server-size", """
A layer's tensors do not have the size of the base model's weight.
Why: the adapter is of another model, or of another size of it.
Who stops: llama.cpp, "has incorrect shape (hint: maybe wrong base model?)", transformers, and vLLM where they are
larger; smaller ones vLLM fills up with zeros in silence.
What to do: name the right base model.
References: loads in vLLM, SGLang, llama.cpp and transformers.
""")
SERVER_CLASS = Code("CD619", "server-class", """
The class that a server builds for the model has no LoRA on a module, or has it and does not use it.
Why: a server has a class of its own for the model, with modules put together, named or ordered otherwise than in
transformers.
Who stops: vLLM, where the class does not name lm_head or embed_tokens among its embedding modules, or names a
projection otherwise ("expected target modules in …"); in silence where it reorders rows as it loads (q_proj and k_proj
of Llama 4), absorbs a projection into its attention (kv_b_proj of DeepSeek), or has no LoRA on a vision tower;
llama.cpp, where its converter refuses, or its graph multiplies without LoRA (q_a_proj of DeepSeek), in silence.
What to do: use another server, or merge the adapter into the model.
References: loads in vLLM, SGLang, llama.cpp and transformers; `docs/servers.md` has the classes.
""")
SERVER_EXPERTS = Code("CD620", "server-experts", """
The experts of a layer are not all there, or not in the form that a server's class wants.
Why: the class keeps the experts of a layer together, and puts in the parts of each as it loads.
Who stops: vLLM, an AssertionError where a part of an expert is missing, and "contains fused 3D MoE weights" where
experts are parameters (`experts.base_layer.lora_A`) and the class has them one by one; llama.cpp says "Unprocessed
experts".
What to do: train all experts with gate, up and down; in vLLM, `--enable-mixed-moe-lora-format` takes parameters.
References: loads in vLLM, SGLang, llama.cpp and transformers.
""")
BASE_UNSEEN = Code("CD690", "base-unseen", """
Whether names and sizes fit the model shows only with the model.
Why: a server holds names and sizes against the model that it serves, and the adapter has none.
Who stops: undecided for every server.
What to do: name the base model.
References: CD617 and CD618, which compare with it.
""")

# What is not judged

NOT_JUDGED = Code("CD901", "not-judged", """
A method that this version does not judge.
Why: its tensors and keys were not looked at in any release, and where no fact speaks nothing is accepted.
Who stops: undecided for the releases that have it.
What to do: load it and compare, or use a newer ckpt-doctor.
References: none: no release was looked at for it.
""")
NOT_REVIEWED = Code("CD902", "not-reviewed", """
A release was asked for that nobody reviewed: newer than what this version knows, or between two that it knows.
Why: what a release does is known from its source or from loads in it, and nothing is taken over from another.
Who stops: undecided for that release, whatever the adapter is. It fails nothing, unless `--fail-on warning` is said.
What to do: ask for a release that is known, which the message names, or use a newer ckpt-doctor.
References: none: no fact speaks of that release.
""")
PROVED = Code("CD903", "proved", """
A real release was given the adapter, on a skeleton of its model, and rejected it or computed something else.
Why: `--prove` was said. What a runtime did wins over what was predicted of it; where they differ, a fact here is wrong.
Who stops: that release, in the environment that it was run in.
What to do: what the message says, which is the runtime's own.
References: docs/prove.md.
""")

# fmt: on

CODES = {code.number: code for code in tuple(globals().values()) if isinstance(code, Code)}
"""Every code by its number, in order."""

OLD_NAMES = {"no-layers": METHOD_WITHOUT_LAYERS, "adapter-name-in-key": ADAPTER_NAME_IN_METHOD_KEY}
"""Names that codes had before, still taken beside those that other codes have now."""

REPAIRED_UNASKED = frozenset((
    ADALORA_RANK_ZERO.number, LORA_RANK_ZERO.number, UNKNOWN_CONFIG_KEY.number, ADALORA_SCHEDULE.number,
    BIAS_SPELLING.number, CONFIG_IMPORTS_CODE.number, MEGATRON_CONFIG.number, ADALORA_TARGET_KIND.number,
))  # fmt: skip
"""What a fix heals where no runtime was asked for: the catalogue of repairs says it, and a scan need not read that."""
