"""Rules about the files themselves: what the loader saw wrong."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter.codes import (
    BOTH_FILES,
    BROKEN_CONFIG,
    BROKEN_INDEX,
    EMPTY_FILE,
    HTML_PAGE,
    LEFT_BESIDE,
    LFS_POINTER,
    MALFORMED_BIN,
    MALFORMED_SAFETENSORS,
    NO_CONFIG,
    NO_TENSORS,
    NO_WEIGHTS,
    NOT_A_FILE,
    OTHER_FORMAT,
    OTHER_NAME,
    PICKLE_WITH_CODE,
    SAFETENSORS_ONLY,
    SHARDED_WEIGHTS,
    TRAINING_STATE,
    TRUNCATED_FILE,
    WHOLE_MODEL,
    WRONG_CONTAINER,
)
from ..adapter.findings import Finding
from ..adapter.runtimes import PEFT, upto
from ..facts.subject import Subject
from .declared import rule

DAMAGE = {code.name: code for code in (
    NO_WEIGHTS, NO_CONFIG, BROKEN_CONFIG, EMPTY_FILE, TRUNCATED_FILE, LFS_POINTER, HTML_PAGE, WRONG_CONTAINER,
    NOT_A_FILE, PICKLE_WITH_CODE, MALFORMED_SAFETENSORS, MALFORMED_BIN, NO_TENSORS, BROKEN_INDEX, OTHER_NAME,
    OTHER_FORMAT, TRAINING_STATE, WHOLE_MODEL,
)}  # fmt: skip
"""The loader's names of what is wrong with a file (`Fault.name`), which are those of the codes."""

ASK_FOR_SAFETENSORS = "do not load it: ask whoever made it for adapter_model.safetensors"


@rule
def damaged_file(subject: Subject) -> Iterator[Finding]:
    """No loader takes a damaged file. One without tensors is read, and every layer stays as it was initialised."""
    for name, message, remedy, *_ in subject.adapter.faults:
        code = DAMAGE[name]
        if code is NO_TENSORS:
            yield code(message, misloads=PEFT)
        else:
            remedy = ASK_FOR_SAFETENSORS if code is PICKLE_WITH_CODE else remedy
            yield code(message, rejects=PEFT, remedy=remedy)


TRAINED_BESIDE = (
    "non_lora_trainables.bin", "non_lora_state_dict.bin", "non_lora_trainables.safetensors", "trainable_params.bin",
    "value_head.safetensors", "value_head.bin",
)  # fmt: skip


@rule
def left_beside(subject: Subject) -> Iterator[Finding]:
    """Weights that were trained beside the adapter, and that only the code which trained them loads
    (LLaVA llava/train/train.py: get_peft_state_non_lora_maybe_zero_3; LongLoRA get_trainable_weights.py; LLaMA-Factory
    extras/constants.py: V_HEAD_SAFE_WEIGHTS_NAME).
    """
    files = [name for name in TRAINED_BESIDE if name in subject.adapter.files]
    if files:
        message = f"{files[0]} has weights that were trained with the adapter, and that PEFT never loads"
        yield LEFT_BESIDE(message)


@rule
def sharded_weights(subject: Subject) -> Iterator[Finding]:
    """PEFT looks for one file only (utils/save_and_load.py: load_peft_weights)."""
    if (
        subject.adapter.format == "safetensors"
        and subject.adapter.weights != ("adapter_model.safetensors",)
        and not subject.adapter.faults
    ):
        message = f"the weights are in {len(subject.adapter.weights)} shards; PEFT reads one file only"
        yield SHARDED_WEIGHTS(message, rejects=PEFT)


@rule
def file_format(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.2 and 0.3 read only `adapter_model.bin` (peft_model.py: from_pretrained)."""
    if subject.adapter.format == "safetensors" and "adapter_model.bin" not in subject.adapter.files:
        message = "there is no adapter_model.bin, the only file that PEFT 0.2 and 0.3 read"
        yield SAFETENSORS_ONLY(message, rejects=upto("0.3"))


MAY_RUN = (PICKLE_WITH_CODE.name, "not-read")
"""What is wrong with an adapter_model.bin beside safetensors that runs code, or may: see `code_beside`."""


@rule
def both_files(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.4 and newer reads safetensors, 0.2 and 0.3 `.bin`, which may differ, or be damaged."""
    if subject.adapter.format != "safetensors" or "adapter_model.bin" not in subject.adapter.files:
        return
    there, old = "adapter_model.bin is there as well", upto("0.3")
    if subject.adapter.beside:
        if subject.adapter.beside.name not in MAY_RUN:
            message = (
                f"{there}, the only file that PEFT 0.2 and 0.3 read, and is damaged: {subject.adapter.beside.message}"
            )
            yield BOTH_FILES(message, rejects=old)
    elif subject.bin_agrees is None:
        message = f"{there}, too large to compare: PEFT 0.2 and 0.3 read it instead"
        yield BOTH_FILES(message, undecided=old, needs="a comparison of both weight files (--values)")
    elif not subject.bin_agrees:
        message = f"{there} and holds something else: PEFT 0.2 and 0.3 read it instead"
        yield BOTH_FILES(message, misloads=old)


@rule
def code_beside(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.2 and 0.3 and every program that prefers `.bin` run the code; PEFT 0.4 and newer does not open the file
    (peft_model.py: load_adapter; utils/save_and_load.py: load_peft_weights). One that cannot be looked into may hold
    code.
    """
    beside = subject.adapter.beside
    if subject.adapter.format != "safetensors" or "adapter_model.bin" not in subject.adapter.files or beside is None:
        return
    if beside.name == PICKLE_WITH_CODE.name:
        message = f"the adapter_model.bin beside the weights is run by what prefers it: {beside.message}"
        yield PICKLE_WITH_CODE(message, rejects=upto("0.3"))
    elif beside.name in MAY_RUN:
        message = (
            f"the adapter_model.bin beside the weights may hold code, as it cannot be looked into: {beside.message}"
        )
        yield PICKLE_WITH_CODE(message, undecided=upto("0.3"), needs="an adapter_model.bin that can be read")
