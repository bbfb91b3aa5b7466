"""The one type that everything shares: an adapter is a config and a table of tensors, each a run of bytes."""

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

if TYPE_CHECKING:
    from .sources import Computed as Computed
    from .sources import Constant as Constant
    from .sources import FileRange as FileRange
    from .sources import Gathered as Gathered
    from .sources import Joined as Joined
    from .sources import Source as Source
    from .sources import TensorInfo as TensorInfo
    from .sources import Zeros as Zeros
    from .sources import zeros as zeros

DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""Bits of one element, by the dtype's name in the safetensors format (safetensors 0.8, `tensor.rs: Dtype`)."""


class AdapterError(Exception):
    """Something could not be examined; the message is one sentence for a person."""


class NotRead(AdapterError):  # noqa: N818 - what is not known, and no fault of the adapter
    """What a repair or a proof wants to know is in a part of a remote file that a scan does not read."""


class NotExactError(AdapterError):
    """What was asked for cannot be had without changing what the adapter computes."""


def unforeseen(what: str, error: Exception) -> str:
    """The sentence for an exception that no code here expects, of whatever kind."""
    message = f"{type(error).__name__}: {error}"
    return f"{what}: ckpt-doctor failed ({message[:500].rstrip(': ')}); please report it"


def clean(text: str) -> str:
    """A text without the control characters that a file's name or content may have for a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class DamagedFile(Exception):  # noqa: N818 - it is a diagnosis that becomes a finding, not an error of ours
    """A file is recognised as damaged; `fault` is the name of the rule that reports it. `walked` is whether all was
    looked at that another reader would run.
    """

    def __init__(self, fault: str, message: str, *, walked: bool = True) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.walked = walked


class Fault(NamedTuple):
    """What the loader saw wrong with a file: the name of a rule in `rules/files.py`, a sentence, and what can be done
    where its page says less. `tool` is the one of `conversions/` in whose form the file is, if it is in one's.
    """

    name: str
    message: str
    remedy: str = ""
    tool: str = ""
    file: str = ""


_SOURCES = ("Computed", "Constant", "FileRange", "Gathered", "Joined", "Source", "TensorInfo", "Zeros", "zeros")


def __getattr__(name: str) -> object:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import sources  # which most scans do without: the header tells what they ask for

    return getattr(sources, name)


Form = tuple[str, tuple[int, ...]]
"""A dtype and a shape."""


NUMBER = re.compile(r"\.[0-9]+(?=\.)")
"""The number of a block, in a name."""


def numbered_alike(names: Iterable[str]) -> list[str]:
    """Names, in each of which every number between dots is 0."""
    listed = list(names)
    alike = NUMBER.sub(".0", "\n".join(listed)).split("\n")
    return alike if len(alike) == len(listed) else [NUMBER.sub(".0", name) for name in listed]


Span = tuple[int, int]
"""Where the bytes of a tensor begin and where they end, counted from the first byte behind the header."""


class Columns(Mapping[str, "TensorInfo"]):
    """The tensors of one file as its header has them, in columns; the object of a tensor is made when it is asked for,
    and those of all once all are.

    `forms` are dtype and shape by name, `spans`, in the same order, where the bytes are behind byte `start` of the file
    `path`.
    """

    def __init__(self, forms: Mapping[str, Form], spans: list[Span], path: str, start: int) -> None:
        self.forms = forms
        self._spans = spans
        self._path = path
        self._start = start

    @cached_property
    def _places(self) -> dict[str, Span]:
        return dict(zip(self.forms, self._spans, strict=True))

    def __getitem__(self, name: str) -> "TensorInfo":
        from .sources import FileRange, TensorInfo

        if "_made" in self.__dict__:
            return self._made[name]
        dtype, shape = self.forms[name]
        first, last = self._places[name]
        return TensorInfo(dtype, shape, FileRange(self._path, self._start + first, last - first))

    @cached_property
    def _made(self) -> dict[str, "TensorInfo"]:
        from .sources import FileRange, TensorInfo

        made: dict[str, TensorInfo] = {}
        for (name, (dtype, shape)), (first, last) in zip(self.forms.items(), self._spans, strict=True):
            made[name] = TensorInfo(dtype, shape, FileRange(self._path, self._start + first, last - first))
        return made

    def values(self) -> ValuesView["TensorInfo"]:
        """The tensors, in the order of the header."""
        return self._made.values()

    def items(self) -> ItemsView[str, "TensorInfo"]:
        """The tensors by name, in the order of the header."""
        return self._made.items()

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)

    def __contains__(self, name: object) -> bool:
        return name in self.forms

    def keys(self) -> KeysView[str]:
        """The names, in the order of the header."""
        return self.forms.keys()


def are_few(names: tuple[str, ...]) -> bool:
    """Whether names may be remembered, as other adapters have the same: a file has them of any number and length."""
    return len(names) <= 4096 and len("".join(names)) <= 1 << 20


class Names:
    """The names of tensors that several files have: one object for all of them, equal to no other, with which is kept
    what hangs on the names alone. `kinds` says of which kind each is: those of one differ in numbers only. `few` is
    whether that may be remembered.
    """

    def __init__(self, names: Iterable[str]) -> None:
        every, numbers = tuple(names), dict[str, int]()
        kinds = [numbers.setdefault(alike, len(numbers)) for alike in numbered_alike(every)]
        self.kinds = dict(zip(every, kinds, strict=True))
        self.few = are_few(every)

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)


class Alike(Mapping[str, Form]):
    """The forms of tensors that have one for each kind, `each`."""

    def __init__(self, names: Names, each: list[Form]) -> None:
        self._kinds = names.kinds
        self._each = each

    def __getitem__(self, name: str) -> Form:
        return self._each[self._kinds[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def keys(self) -> KeysView[str]:
        """The names, in the order of the header."""
        return self._kinds.keys()


class Even(Columns):
    """The tensors of a file whose names others have, too, and of which those of a kind are of one form, `each` by kind;
    `ends` is where each ends, after a 0.
    """

    def __init__(self, names: Names, each: list[Form], ends: list[int], path: str, start: int) -> None:
        self.names = names
        self.forms = Alike(names, each)
        self._ends = ends
        self._path = path
        self._start = start

    @cached_property
    def _spans(self) -> list[Span]:  # type: ignore[override]
        return [*pairwise(self._ends)]


def forms(tensors: "Mapping[str, TensorInfo]") -> Mapping[str, Form]:
    """Dtype and shape of each tensor, by name."""
    return tensors.forms if isinstance(tensors, Columns) else {name: info[:2] for name, info in tensors.items()}


class Base:
    """A base model: the shape of each parameter by its name, and its config.json, or {}.

    `name` is its id on the Hub and `revision` the commit there, "" where nothing tells; `path` is as the user gave it.
    """

    def __init__(
        self, parameters: dict[str, tuple[int, ...]], config: dict[str, object], name: str = "", revision: str = "",
        path: str = "",
    ) -> None:  # fmt: skip
        self.parameters = parameters
        self.config = config
        self.name = name
        self.revision = revision
        self.path = path

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[object, ...]:
        """NO_BASE is that in another process, too."""
        return "NO_BASE" if self is NO_BASE else super().__reduce_ex__(protocol)

    @cached_property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Module → the shape of its weight."""
        ends = ".weight"
        return {name[: -len(ends)]: shape for name, shape in self.parameters.items() if name.endswith(ends)}

    @cached_property
    def biases(self) -> frozenset[str]:
        """The modules that have a bias."""
        ends = ".bias"
        return frozenset(name[: -len(ends)] for name in self.parameters if name.endswith(ends))

    @cached_property
    def containers(self) -> frozenset[str]:
        """The modules that only hold others."""
        names = {name.rsplit(".", depth)[0] for name in self.weights for depth in range(1, name.count(".") + 1)}
        return frozenset(names - self.weights.keys())

    def renamed(self, name: Callable[[str], str]) -> "Base":
        """The same model with its parameters named otherwise."""
        parameters = {name(old): shape for old, shape in self.parameters.items()}
        return Base(parameters, self.config, self.name, self.revision, self.path)


class Adapter(NamedTuple):
    """A config and a table of tensors.

    `path` is as the user gave it, `folder` where the files are. `config` is None where it is missing or unreadable.
    `weights` names the files that the tensors were read from, `format` is "safetensors", "bin" or None.
    `files` are the names of all files of the folder, `record` an earlier `ckpt-doctor.json`. `bin_agrees` says, where
    both weight files are there, whether they hold the same (None: not compared), `beside` what is wrong with the `.bin`
    that is not read. `stamps` tell whether a file is still the one that was read: its name, and its number, size and
    time. `trained` is, of an AdaLoRA with a trainer_state.json, the step at which it was saved and the last of the run.
    `origin` is what lies there in truth, where that is in another form, which was read as PEFT's.
    """

    path: str
    folder: str
    config: dict[str, object] | None
    tensors: "Mapping[str, TensorInfo]"
    format: str | None = None
    weights: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    record: dict[str, object] | None = None
    bin_agrees: bool | None = None
    beside: Fault | None = None
    stamps: tuple[tuple[str, int, int, int], ...] = ()
    trained: tuple[int, int] | None = None
    origin: "Origin | None" = None

    @property
    def peft_type(self) -> str | None:
        """The method, in upper case, or None."""
        value = (self.config or {}).get("peft_type")
        return value if isinstance(value, str) else None

    def _summary(self) -> list[tuple[str, str]]:
        from .summary import first

        return [
            ("path", self.path),
            ("method", self.peft_type or "unknown"),
            ("config", "none that can be read" if self.config is None else f"{len(self.config)} keys"),
            ("tensors", f"{len(self.tensors)} in {', '.join(self.weights[:2]) or 'no file'}"),
            *first([("damaged", fault.message) for fault in self.faults]),
        ]

    def __repr__(self) -> str:
        from .summary import text

        return text("Adapter", self._summary())

    def _repr_html_(self) -> str:
        from .summary import html

        return html("Adapter", self._summary())


class Origin(NamedTuple):
    """What an adapter was converted from: the tool of `conversions/` that did, the file, what that is, as a sentence,
    and the adapter as it lies there.
    """

    tool: str
    file: str
    message: str
    adapter: Adapter


class Question(NamedTuple):
    """What is asked of an adapter.

    `runtimes` are the ids of those that matter, None where none was named. `adapter_name` is the name under which it
    will be loaded, `base` the model, `max_rank` the limit of the server. `look_up` are the runtimes for whose sake the
    model may be looked up in the local cache of the Hub, where one of them is undecided and none was named. `values`
    says whether the numbers of all tensors are read, too.
    """

    runtimes: frozenset[str] | None = None
    adapter_name: str = "default"
    base: Base | None = None
    max_rank: int | None = None
    look_up: frozenset[str] = frozenset()
    values: bool = False


NO_BASE = Base({}, {})
"""What stands for the base where it was said that there is none to be looked up."""

NOTHING_ASKED = Question()


def question_of(
    runtimes: frozenset[str] | None, adapter_name: str, base: Base | None, max_rank: int | None, *,
    values: bool = False,
) -> Question:  # fmt: skip
    """What somebody asks: where no base is named, nor said to be none, the local cache may be looked up."""
    look_up = runtimes or frozenset() if base is None else frozenset[str]()
    return Question(runtimes, adapter_name, None if base is NO_BASE else base, max_rank, look_up, values)


class Layer(NamedTuple):
    """An adapted module.

    `factors` maps a factor's name to its key in the adapter; `rank` is None where the shapes do not tell it
    (a flattened tensor, factors that disagree); `alpha` and `scaling` are None where the config does not tell them.
    """

    module: str
    factors: dict[str, str]
    rank: int | None
    alpha: float | None
    scaling: float | None
