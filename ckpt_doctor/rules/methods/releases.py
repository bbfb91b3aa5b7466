"""Rules about the method itself: which releases have it, in which it was reviewed, and what its own rows say."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ...adapter.codes import METHOD_OF_OTHER_RELEASES, NOT_JUDGED, OTHER_FORMAT, UNKNOWN_METHOD, UNKNOWN_TASK
from ...adapter.findings import Finding
from ...adapter.runtimes import PEFT
from ...facts.config_keys import knows, table
from ...facts.methods import LORAS, record
from ...facts.record import Method
from ...facts.subject import Subject
from ..declared import rule
from .review import of_methods

TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""PEFT's task types (utils/peft_types.py: TaskType), the same in every release that checks them."""


TOLD_BY = {
    ".lora_E": "ADALORA", ".lora_A": "LORA", ".lora_embedding_A": "LORA", ".hada_w1_a": "LOHA", ".lokr_w": "LOKR",
    ".ia3_l": "IA3", ".vera_lambda_b": "VERA", ".boft_R": "BOFT",
}  # fmt: skip
"""What stands in the names of one method's tensors alone (tuners/*/layer.py: adapter_layer_names)."""


OWN_CONFIG = "fetch the adapter's own config from where it was trained: the tensors do not tell its scale"
OTHER_CONFIGS = {
    frozenset({"config", "model_class", "model_type"}): (
        "that of the library adapters (AdapterHub), and not PEFT's",
        "load it with that library (model.load_adapter)",
    ),
    frozenset({"lora_parameters"}): ("MLX's, and not PEFT's", "load it with mlx_lm (--adapter-path)"),
    frozenset({"model_type", "architectures"}): ("the config of a model, and not of an adapter", OWN_CONFIG),
    frozenset({"model_type", "hidden_size"}): ("the config of a model, and not of an adapter", OWN_CONFIG),
}
"""Keys of what people save as adapter_config.json → what it is, and what can be done (adapters loading.py;
mlx-lm tuner/utils.py; transformers configuration_utils.py).
"""


@rule
def method_unknown(subject: Subject) -> Iterator[Finding]:
    """peft_type is none that a release knows: KeyError from its PEFT_TYPE_TO_CONFIG_MAPPING, in every release.

    The name is in upper case; "lora" is no method. BONE was removed in PEFT 0.19, where MiSS took its place.
    """
    if subject.adapter.config is None:
        return
    config, method = subject.adapter.config, subject.adapter.config.get("peft_type")
    of_another = next((said for keys, said in OTHER_CONFIGS.items() if method is None and keys <= config.keys()), None)
    if of_another:
        if not any(fault.name == OTHER_FORMAT.name for fault in subject.adapter.faults):  # which says so
            what, remedy = of_another
            yield UNKNOWN_METHOD(f"adapter_config.json is {what}", keys=("peft_type",), rejects=PEFT, remedy=remedy)
    elif not isinstance(method, str) or not table(method):
        meant = next((name for part, name in TOLD_BY.items() if any(part in key for key in subject.names)), "")
        if method is None:
            message = "the config has no peft_type"
        elif isinstance(method, str) and table(method.upper()):
            message = f"peft_type is {method!r}, which is a method only in upper case"
            meant = method.upper()
        else:
            message = f"peft_type is {str(method)[:60]!r}, which is no method of PEFT"
        remedy = f'set peft_type to "{meant}" in adapter_config.json' if meant else ""
        if method is None and meant:
            message += f": the names of the tensors are those of {meant}"
        yield UNKNOWN_METHOD(message, keys=("peft_type",), rejects=PEFT, remedy=remedy)
    elif method != "ADALORA":  # whose first releases have faults of their own: CD301
        missing = PEFT - knows(method, "peft_type")
        if missing:
            yield METHOD_OF_OTHER_RELEASES(f"not every PEFT release has {method}", keys=("peft_type",), rejects=missing)


@rule
def task_type(subject: Subject) -> Iterator[Finding]:
    """task_type is none that PEFT knows: "Invalid task type" from 0.14 on (PeftConfigMixin.__post_init__)."""
    task = subject.config.get("task_type")
    if task is not None and task not in TASKS:
        message = f"task_type is {str(task)[:60]!r}, which is no task of PEFT"
        rejected = (record(subject.method) or Method("")).tasks_checked
        yield UNKNOWN_TASK(message, keys=("task_type",), rejects=rejected)


@rule
def not_judged_method(subject: Subject) -> Iterator[Finding]:
    """A method, or a release of it, that nobody looked at: nothing is said of it."""
    name = subject.method
    if name and table(name) and name not in LORAS:
        known = record(name)
        left = PEFT - known.reviewed if known else PEFT
        if left:
            where = "this version" if left == PEFT else "this version in every release"
            message = f"the method {name} is not judged by {where}"
            yield NOT_JUDGED(message, undecided=left, needs="a newer ckpt-doctor")


@of_methods
def rows(subject: Subject, method: Method) -> Iterator[Finding]:
    """What a method's own rows say: whom something about it stops."""
    return chain.from_iterable(row.findings(subject) for row in method.rows)
