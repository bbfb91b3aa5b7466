"""Rules about what a config leaves to the base model: each release has tables by its type."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter.codes import DEFAULT_TARGETS, UNCLEAR_TARGET
from ..adapter.findings import THE_BASE, Finding
from ..adapter.runtimes import NONE, PEFT, upto
from ..facts.default_targets import default_targets, untabled
from ..facts.meaning import left_random
from ..facts.methods import LORAS
from ..facts.names import targets
from ..facts.subject import Subject
from .config import of_transformers
from .declared import rule


@rule
def null_targets(subject: Subject) -> Iterator[Finding]:
    """Without target_modules a release takes those of its table, or raises "Please specify `target_modules`"
    (tuners/tuners_utils.py: BaseTuner._prepare_adapter_config).
    """
    config, method = subject.config, subject.method or ""
    unnamed, adapter = config.get("target_modules") is None, subject.adapter
    if not unnamed or not subject.is_named or not subject.layers or adapter.config is None:
        return
    asked = upto("0.16") if config.get("target_parameters") else PEFT  # which newer releases read instead
    keys, code = ("target_modules",), DEFAULT_TARGETS if method in LORAS else UNCLEAR_TARGET
    if not subject.model_type:
        message = "target_modules is null: each release then looks the base model up in a table of its own"
        none = PEFT if of_transformers(subject) is False else untabled(method)
        if asked == PEFT:  # else CD202 says whom this stops
            yield code(message, keys=keys, rejects=none, undecided=PEFT - none, needs=THE_BASE)
        return
    rejects, misloads, doubted = NONE, NONE, NONE
    for ids, names in default_targets(method, subject.model_type):
        if names is None:
            rejects |= ids & asked
            continue
        for era in subject.changed(adapter._replace(config={**config, "target_modules": names})).eras:
            here = ids & era.ids & asked
            if era.misfits or (method == "ADALORA" and subject.masks.keys() - era.hit):
                rejects |= here
            elif era.hit != subject.layers.keys():
                misloads |= here
            else:  # what else is targeted may be left at random numbers
                doubted |= here & left_random(subject)
    if rejects | misloads | doubted:
        message = f"target_modules is null: what a release takes for a {subject.model_type}, is not the same in all"
        needs = "a load in that release"
        yield code(message, keys=keys, rejects=rejects, misloads=misloads, undecided=doubted, needs=needs)


@rule
def null_feedforward(subject: Subject) -> Iterator[Finding]:
    """IA3 looks its feedforward_modules up in the same way (tuners/ia3/model.py: IA3Model._prepare_adapter_config)."""
    if subject.method != "IA3" or not subject.model_type or subject.value("feedforward_modules") is not None:
        return
    rejects = NONE
    for ids, names in default_targets("IA3 feedforward", subject.model_type):
        turned = [
            module for module, layer in subject.layers.items()
            if len(shape := subject.shapes(layer).get("ia3_l", ())) == 2
            and shape[0 if names and targets(names, module) else 1] != 1
        ]  # fmt: skip
        rejects |= ids if names is None or turned else NONE
    if rejects:
        message = f"feedforward_modules is null: what a release takes for a {subject.model_type}, does not fit"
        yield UNCLEAR_TARGET(message, keys=("feedforward_modules",), rejects=rejects)
