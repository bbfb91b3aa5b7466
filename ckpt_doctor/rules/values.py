"""Rules about values of LoRA's and AdaLoRA's config that nobody looked at: they are unknown, by construction."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter.codes import NOT_JUDGED, ODD_VALUE
from ..adapter.findings import Finding, spelled
from ..adapter.runtimes import PEFT
from ..facts.config_keys import knows, table
from ..facts.lora_keys import FIELDS, FOLLOWED, HARMLESS, ITEMS, KINDS, UNREAD
from ..facts.methods import LORAS, REVIEWED
from ..facts.subject import Subject
from .config import impossible_numbers
from .declared import rule

NOBODY = "and nobody looked at what releases make of that"


@rule
def not_looked_at(subject: Subject) -> Iterator[Finding]:
    """A release in which nobody looked at LoRA yet; a value that is not its key's default, and is of a type nobody
    expected, or of a key that nothing follows; a key that no release has.
    """
    method = subject.method
    if method not in LORAS:
        return
    left = PEFT - REVIEWED
    if left:
        yield NOT_JUDGED(f"{method} was not looked at in these releases", undecided=left, needs="a newer ckpt-doctor")
    rows, unread = table(method), UNREAD.get(method, ())
    impossible = impossible_numbers(subject)  # CD306 says so
    for key, value in subject.chosen.items():
        if key not in rows or key in unread or key in impossible:
            continue
        default = subject.defaults[key]
        if not _is_of_its_kind(key, value, default) or (value and key not in FOLLOWED and key not in HARMLESS):
            message = f"{key} is {spelled(value)}, {NOBODY}"
            yield ODD_VALUE(message, keys=(key,), undecided=knows(method, key), needs="a load")
    chosen = subject.chosen.items()
    strange = [key for key, value in chosen if key not in rows and key not in KINDS and value is not None]
    if strange and subject.written_by:  # where it is not, CD203 says so
        message = f"no release has the key {', '.join(strange)[:80]}, {NOBODY}"
        yield ODD_VALUE(message, keys=strange, undecided=PEFT, needs="the meaning of the key")


def _is_of_its_kind(key: str, value: object, default: object) -> bool:
    """Whether a value is of a type that its key may have. Null was loaded for every key in 20 releases: where it stops
    one, a rule says so.
    """
    if value is None:
        return True
    if type(default) is bool and key not in KINDS:
        return type(value) is bool
    if type(value) not in KINDS.get(key, ()):
        return False
    if isinstance(value, dict) and not value.keys() <= FIELDS.get(key, value.keys()):
        return False
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return key not in ITEMS or all(type(item) in ITEMS[key] for item in items)
