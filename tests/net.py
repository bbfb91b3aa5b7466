"""Adapters without their weights, and what real runtimes did with them: data/net.json.xz, made by scripts/make_net.py.
data/lab.json.xz, made by scripts/lab, is of the same form.

The file holds `max_rank`, the limit that servers were run with, `bases` (name → arguments of `judging.base`) and
`corpora` (name → `peft`, the releases that were run, and `adapters`). An adapter has `adapter` (arguments of
`judging.adapter`), `bases` (how the base was saved → its name), and outcomes: `peft`, a letter for each release (`-`:
not run), and `servers`. `unsaid` is "always" where the files hold no trace of what was done to it, "base" where only
the base model tells.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import judging
from tabulate import tabulate

DATA = Path(__file__).parent / "data"
NET = DATA / "net.json.xz"
LAB = DATA / "lab.json.xz"
OUTCOMES = {"a": "accepts", "r": "rejects", "m": "misloads", "l": "loads"}
NOT_RUN = "-"
KNOWN_HEAD = """\
# Outcomes of the {} that are known to be wrong today: adapter | real, ours, in which runtimes.
# Made, and only made shorter, by `python scripts/make_net.py --known`.
"""


class Question(NamedTuple):
    """An adapter, asked with or without a base model; `real` is what runtimes did, in their order.

    `unsaid`: the files do not tell what was done to it.
    """

    corpus: str
    name: str
    adapter: Any
    real: dict[str, str]
    unsaid: bool

    @property
    def key(self) -> tuple[str, str]:
        """The corpus and the adapter."""
        return self.corpus, self.name

    @property
    def servers(self) -> frozenset[str]:
        """The servers whose outcome is known."""
        return judging.SERVERS & self.real.keys()


Mistakes = dict[tuple[str, str], dict[str, tuple[str, str]]]
"""Corpus and adapter → runtime → what it did, and what is said of it."""


def known_wrong(path: Path) -> Path:
    """The list beside a file of what is known to be wrong."""
    return DATA / f"{path.name.partition('.')[0]}_known_wrong.txt"


def head(path: Path) -> str:
    """What that list begins with."""
    return KNOWN_HEAD.format(path.name.partition(".")[0])


def read(path: Path = NET) -> dict[str, Any]:
    """A file."""
    net: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    return net


def write(net: dict[str, Any], path: Path = NET) -> None:
    """Write a file."""
    text = json.dumps(net, separators=(",", ":"), ensure_ascii=False)
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def questions(net: dict[str, Any]) -> Iterator[Question]:
    """Each adapter without its base model, where PEFT's outcomes are known, and with each form of its base.

    Servers read a model as the Hub has it, so they are asked with that form alone.
    """
    bases = {name: judging.base(**base) for name, base in net["bases"].items()}
    for corpus, held in net["corpora"].items():
        for name, known in held["adapters"].items():
            ran = zip(held["peft"], known["peft"], strict=True)
            peft = {f"peft=={release}": OUTCOMES[letter] for release, letter in ran if letter != NOT_RUN}
            servers = {next(iter(judging.ids(id_))): OUTCOMES[letter] for id_, letter in known["servers"].items()}
            for form in (None, *known["bases"]):
                real = {**peft, **servers} if form == "base" else peft
                base = bases[known["bases"][form]] if form else None
                adapter = judging.adapter(**known["adapter"], base=base, max_rank=net["max_rank"])
                unsaid = known["unsaid"] == "always" or (known["unsaid"] == "base" and form is None)
                if real:
                    yield Question(f"{corpus} with {form}" if form else corpus, name, adapter, real, unsaid)


def is_right(id_: str, real: str, ours: str, unsaid: bool) -> bool:
    """Whether a verdict is right.

    `loads` is accepts for a PEFT release; for a server, where nothing could be compared, it is anything but rejects.
    """
    if real == "loads" and id_ in judging.SERVERS:
        return ours != "rejects"
    return _plain(real) == ours or (unsaid and real != "rejects" and ours in ("accepts", "unknown"))


def _plain(real: str) -> str:
    return "accepts" if real == "loads" else real


def mistakes(question: Question, ours: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Runtime → real outcome and ours, where that is wrong."""
    return {
        id_: (_plain(real), ours[id_])
        for id_, real in question.real.items() if not is_right(id_, real, ours[id_], question.unsaid)
    }  # fmt: skip


def judged(question: Question) -> dict[str, str]:
    """Runtime → what is said of it."""
    return judging.verdicts(question.real, judging.judge(question.adapter, question.servers))


def difference(outcomes: Mistakes, before: Mistakes) -> tuple[Mistakes, Mistakes]:
    """What is wrong and was not, or was otherwise; and what was wrong and is right.

    A wrong word that has become "unknown" is neither.
    """
    new: Mistakes = {}
    gone: Mistakes = {}
    for key in {**outcomes, **before}:
        now, was = outcomes.get(key, {}), before.get(key, {})
        for id_, kind in now.items():
            if was.get(id_) != kind and not (id_ in was and kind[1] == "unknown"):
                new.setdefault(key, {})[id_] = kind
        for id_ in was.keys() - now.keys():
            gone.setdefault(key, {})[id_] = was[id_]
    return new, gone


def count(outcomes: Mistakes) -> int:
    """How many outcomes these are."""
    return sum(map(len, outcomes.values()))


SHRINK = "right now, and still listed: run `python scripts/make_net.py --known`"


def hold(path: Path) -> None:
    """Nothing of a file is wrong that is not in the list beside it, and nothing there is right by now."""
    judged_ = [(question, judged(question)) for question in questions(read(path))]
    wrong = {question.key: mistakes(question, ours) for question, ours in judged_}
    recorded = {question.key: list(question.real) for question, _ in judged_}
    listed = known_wrong(path).read_text(encoding="utf-8")
    print("\n" + table(judged_))
    new, gone = difference(wrong, known(listed, recorded))
    assert not new, f"{count(new)} outcomes are wrong that were not: real, ours\n{listing(new, recorded)}"
    assert not gone, f"{count(gone)} outcomes are {SHRINK}\n{listing(gone, recorded)}"
    text = head(path) + listing({key: ids for key, ids in wrong.items() if ids}, recorded)
    assert text == listed, f"what is unknown now is listed as worse: {SHRINK}"


def table(judged: list[tuple[Question, dict[str, str]]]) -> str:
    """How many verdicts are of which kind, by corpus."""
    rows: dict[str, Counter[str]] = {}
    for question, ours in judged:
        for id_, real in question.real.items():
            kind = "servers" if id_ in question.servers else "PEFT"
            counts = rows.setdefault(f"{question.corpus}, {kind}", Counter())
            right = is_right(id_, real, ours[id_], question.unsaid)
            counts.update({
                "outcomes": 1, "right": right, "unknown": ours[id_] == "unknown", "wrong": not right,
                "false accepts": not right and ours[id_] == "accepts",
            })  # fmt: skip
    kinds = ("outcomes", "right", "unknown", "wrong", "false accepts")
    return tabulate([(corpus, *(counts[kind] for kind in kinds)) for corpus, counts in rows.items()], ("", *kinds))


Recorded = dict[tuple[str, str], list[str]]
"""Corpus and adapter → the runtimes whose outcome is known, in their order."""


def listing(outcomes: Mistakes, recorded: Recorded) -> str:
    """The text of a list of wrong outcomes."""
    lines = []
    for corpus, pairs in groupby(sorted(outcomes), key=lambda pair: pair[0]):
        lines.append(f"\n[{corpus}]\n")
        for pair in pairs:
            kinds: dict[tuple[str, str], list[str]] = {}
            for id_ in filter(outcomes[pair].__contains__, recorded[pair]):
                kinds.setdefault(outcomes[pair][id_], []).append(id_)
            parts = [f"{' '.join(kind)} {' '.join(_spans(ids, recorded[pair]))}" for kind, ids in kinds.items()]
            lines.append(" | ".join((pair[1], *parts)) + "\n")
    return "".join(lines)


def known(text: str, recorded: Recorded) -> Mistakes:
    """What `listing` said."""
    outcomes: Mistakes = {}
    corpus = ""
    for line in filter(None, text.splitlines()):
        if line.startswith("["):
            corpus = line.strip("[]")
        elif not line.startswith("#"):
            name, *parts = line.split(" | ")
            order = recorded[corpus, name]
            words = [part.split() for part in parts]
            outcomes[corpus, name] = {
                id_: (real, ours) for real, ours, *spans in words for span in spans for id_ in _within(span, order)
            }
    return outcomes


def _spans(ids: list[str], order: list[str]) -> list[str]:
    """PEFT's releases as `0.6.2-0.9.0`, where none that is known lies between and is missing; servers by name."""
    runs: list[list[str]] = []
    for id_ in ids:
        neighbours = runs and order.index(runs[-1][-1]) + 1 == order.index(id_) and id_.startswith("peft==")
        runs[-1].append(id_) if neighbours else runs.append([id_])
    return ["-".join(id_.removeprefix("peft==") for id_ in dict.fromkeys((run[0], run[-1]))) for run in runs]


def _within(span: str, order: list[str]) -> list[str]:
    if "==" in span:
        return [span]
    first, _, last = span.partition("-")
    return order[order.index(f"peft=={first}") : order.index(f"peft=={last or first}") + 1]
