"""What is known of a method of PEFT: a record, and its rows: whom something stops, when, and by which source."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..adapter.findings import Code, Finding, several
from ..adapter.runtimes import NONE, PEFT, Ids, since
from .forms import Config
from .methods import NAMED
from .names import Names

if TYPE_CHECKING:
    from .subject import Subject

When = Callable[["Subject"], "bool | Names"]
"""Whether a row is of an adapter, or the modules or tensors of which it is: none of them is "no"."""


class Row(NamedTuple):
    """Whom something about an adapter stops.

    `when` is whether it is so, or of which layers or tensors, which `{names}` in the sentence stands for. `source` is
    where in PEFT it stands, `file: symbol`. `read` marks a row that follows from the source and was not seen to decide
    what a real release did.
    """

    code: Code
    when: When
    says: str
    source: str
    rejects: Ids = NONE
    misloads: Ids = NONE
    undecided: Ids = NONE
    keys: tuple[str, ...] = ()
    needs: str | None = None
    read: bool = False

    def findings(self, subject: "Subject") -> Iterator[Finding]:
        """What the row says of an adapter."""
        matches = self.when(subject)
        if matches:
            names = matches if isinstance(matches, list) else []
            needs = self.needs or ("the base model" if self.undecided else None)
            yield self.code(
                self.says.format(names=several(names)), tensors=subject.keys_of(names), keys=self.keys,
                rejects=self.rejects, misloads=self.misloads, undecided=self.undecided, needs=needs,
            )  # fmt: skip


ANEW = "something else at each load"
"""What a release computes that draws numbers at each load which are in no file."""

Computes = Callable[["Subject"], object]


class Differs(NamedTuple):
    """Releases compute in different ways from one file.

    Those that compute otherwise than the one that saved the adapter misload it; if it is not known who saved it,
    all of them are undecided. What releases compute is a word, or a function that tells it of an adapter.
    """

    code: Code
    computes: Mapping[Ids, str | Computes]
    when: When
    says: str
    source: str
    keys: tuple[str, ...] = ()
    read: bool = False

    def findings(self, subject: "Subject") -> Iterator[Finding]:
        """Who misloads an adapter, or may."""
        if not self.when(subject):
            return
        values = {ids: made(subject) if callable(made) else made for ids, made in self.computes.items()}
        meant = [made for ids, made in values.items() if ids & subject.saved_by] or list(values.values())
        everyone = NONE.union(*values)
        misloads = NONE.union(*(ids for ids, made in values.items() if made == ANEW or made != meant[0]))
        undecided = NONE
        if any(made != meant[0] for made in meant):
            misloads = NONE.union(*(ids for ids, made in values.items() if made == ANEW))
            undecided = everyone - misloads
        elif meant[0] == ANEW:
            misloads = everyone
        if misloads or undecided:
            needs = "the release that saved it" if undecided else None
            yield self.code(self.says, keys=self.keys, misloads=misloads, undecided=undecided, needs=needs)


def every_layer(config: Config) -> bool:  # noqa: ARG001
    """Patterns hold for every config of a method."""
    return True


PATTERNS = {"r": "rank_pattern", "n_frequency": "n_frequency_pattern", "block_size": "block_size_pattern"}
"""Config keys that another one gives single layers other values of."""


class Method(NamedTuple):
    """A method of PEFT.

    Of a layer and shared by layers are the tensors as `forms.py` reads them. A load raises without those `demanded`;
    without others it goes on with what they are initialised to. `shared_sized` are the releases that hold the sizes of
    the shared ones against the model, `buffers` matches what is saved beside, or was by older releases.

    `sides` are the sizes of the weight that the shapes of a layer's tensors tell; None where the letters `in` and `out`
    of the grammar are them.

    `scale` is a config key, its default, and the keys by whose sum it is divided; None for a method without a scale,
    or that learns it. `patterns` are config keys that another one gives single layers other values of, if `patterned`.
    `earlier` is how older releases read the config of a layer.

    `nullable` are keys with a default of which null need not stop a load, `words` what a word or flag may be beside
    its default, `kinds` the types of keys whose default is null. `harmless` are keys that no loaded layer's forward
    reads, `alike` those that all releases with the method read in the same way; each with the reason. Any other key
    that neither the tensors nor a row names is unknown where it is not its default.
    """

    name: str
    reviewed: Ids = NONE
    tensors: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    demanded: tuple[str, ...] = ()
    shared_sized: Ids = PEFT
    buffers: str = "(?!)"
    sides: Callable[[Mapping[str, tuple[int, ...]]], tuple[int, ...]] | None = None
    scale: tuple[str, float | None, tuple[str, ...]] | None = None
    patterns: Mapping[str, str] = PATTERNS
    patterned: Callable[[Config], bool] = every_layer
    earlier: tuple[Ids, Callable[[Config, str], Config]] | None = None
    nullable: tuple[str, ...] = ()
    words: Mapping[str, tuple[object, ...]] = {}
    kinds: Mapping[str, tuple[type, ...]] = {}
    harmless: Mapping[str, str] = {}
    alike: Mapping[str, str] = {}
    one_of: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row | Differs, ...] = ()
    starts_random: bool = False
    layers_optional: bool = False
    ways_vary: bool = False
    targets: str = NAMED
    takes_default: Ids = since("0.21")
    tasks_checked: Ids = since("0.14")
