"""Rules about config keys that a release does not know. Which knows what is in `facts/config_keys.py`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ..adapter.codes import FUNCTION_CONFIG_KEY, STRANGE_CONFIG_KEY, UNKNOWN_CONFIG_KEY
from ..adapter.findings import Finding
from ..adapter.runtimes import NONE, PEFT, Ids
from ..facts.config_keys import CHANGED_DEFAULTS, OTHER_SHAPES, RAISING, READ_ELSEWHERE, lacking, neutral, table
from ..facts.embeddings import USUAL
from ..facts.methods import LORAS
from ..facts.names import named
from ..facts.subject import Subject
from .declared import rule

_BOTH = tuple(f".{name}.weight" for name in USUAL)


def _is_idle(subject: Subject, key: str) -> bool:
    """Whether a key has no effect on the tensors that are there."""
    if key == "exclude_modules":  # what is left out is a vector of ones
        return subject.method == "IA3" and not _hits(subject)
    if key == "ensure_weight_tying":  # both are in the file, and loaded by their names
        return all(any(tensor.endswith(name) for tensor in subject.names) for name in _BOTH)
    # a bias of lora_B starts at zero
    return key == "lora_bias" and not any(tensor.endswith(".lora_B.bias") for tensor in subject.names)


def _hits(subject: Subject) -> bool:
    """Whether exclude_modules names a layer of the file, or may."""
    names = subject.config.get("exclude_modules")
    return not isinstance(names, list) or None in names or bool(named(names, subject.layers))


@lru_cache(256)
def _unknown(
    method: str, keys: tuple[str, ...], counted: Ids, replicates: bool
) -> tuple[tuple[str, ...], Ids, Ids, Ids]:
    """Those of some keys that releases among `counted` do not know; the releases that reject them, those that stop at
    what follows, and those that ignore them.
    """
    unknown = {key: lacking(method, key) for key in keys}
    loud_keys = OTHER_SHAPES | {"layer_replication"} if replicates else OTHER_SHAPES
    silent = READ_ELSEWHERE if method in LORAS else {"modules_to_save"}  # CD527
    loud = NONE.union(*(unknown[key] for key in keys if key in loud_keys))
    ignored = NONE.union(*{unknown[key] for key in keys if key not in silent}) - RAISING - loud
    named = tuple(key for key in keys if unknown[key] & counted)
    return named, NONE.union(*{*unknown.values()}) & RAISING, loud, ignored


@rule
def unknown_key(subject: Subject) -> Iterator[Finding]:
    """PEFT 0.6 – 0.13 raise `TypeError: … got an unexpected keyword argument`; 0.5 and older ignore unknown keys and
    0.14 and newer drop them, also where the key changes the function (huggingface/peft#2340).
    """
    method = subject.method
    if method is None or subject.adapter.config is None or not table(method):
        return
    by_meaning: dict[bool, list[str]] = {True: [], False: []}
    chosen = subject.chosen
    for key, value in subject.config.items():
        default = key not in chosen and (method, key) not in CHANGED_DEFAULTS
        by_meaning[default or neutral(method, key, value) or _is_idle(subject, key)].append(key)
    replicates = method == "ADALORA" and bool(subject.masks)  # rank_pattern stops it
    own = subject.adapter.config.keys() <= table(method).keys()
    judged = _unknown if own else _unknown.__wrapped__  # no strange key is remembered
    for is_neutral, keys in by_meaning.items():
        named, rejected, loud, ignored = judged(method, tuple(keys), RAISING if is_neutral else PEFT, replicates)
        if is_neutral and rejected:
            message = f"config keys that older releases do not know, and that mean nothing here: {', '.join(named)}"
            yield UNKNOWN_CONFIG_KEY(message, keys=named, rejects=rejected)
        elif not is_neutral and named:
            strange = [key for key in named if key not in table(method)]
            message = (
                f"config keys that change what is computed, and that older releases do not know: {', '.join(named)}"
            )
            if strange:
                # a release that is known to have saved it never had such a key, so it came from elsewhere
                ignored = frozenset() if subject.written_by else ignored
                message = f"config keys of unknown meaning: {', '.join(strange)}"
                yield STRANGE_CONFIG_KEY(
                    message, keys=tuple(strange), rejects=RAISING, undecided=ignored, needs="the meaning of the key"
                )
            else:
                yield FUNCTION_CONFIG_KEY(message, keys=named, rejects=rejected | loud, misloads=ignored)
