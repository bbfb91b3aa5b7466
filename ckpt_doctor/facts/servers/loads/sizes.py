"""Sizes of pairs against the model's: by its weights where they are there, else by what its config tells."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ....adapter import Base
from ..record import REJECTS, UNKNOWN
from .load import Fate, Load, Pair, Shape

THE_WEIGHTS = "the model's weights (--base)"


def compared(
    load: Load, server: str, module: str, pair: Pair, loose: Collection[str] = (), path: str = "",
    transposed: bool = False,
) -> Iterator[Fate]:  # fmt: skip
    """A pair of another size than the model's weight is rejected, but where it differs in what the server is `loose`
    about ("less input", "more output"): such a pair is cut or filled up, and nobody knows what was meant. The weight of
    an embedding, and of a Conv1D (`transposed`), is input by output.
    """
    sizes = pair.sizes
    if sizes is None or module.endswith((".experts", ".base_layer")):
        return
    weight = weight_of(load, module, path)
    if weight is None:
        if not load.base.weights and not set(sizes) <= load.sizes:
            message = f"whether {module} has the model's size shows only with its weights"
            yield Fate(UNKNOWN, "size", message, (module,), THE_WEIGHTS)
        return
    true = weight[::-1] if pair.embedding or transposed else weight
    if sizes != true:
        message = f"{module} is {list(sizes)}, and {list(true)} in the model"
        outcome = UNKNOWN if differs(sizes, true) <= {*loose} else REJECTS
        yield Fate(outcome, "size", f"{server}: {message}", (module,))


def differs(sizes: Shape, true: Shape) -> set[str]:
    """In what a pair differs from the model's weight: "less input", "more output"."""
    sides = zip(("output", "input"), sizes, true, strict=True)
    return {f"{'more' if mine > size else 'less'} {side}" for side, mine, size in sides if mine != size}


def weight_of(load: Load, module: str, path: str = "") -> Shape | None:
    """The shape of a module's weight in the model's files, where they name it."""
    name = in_files(load.base, module, path)
    shape = None if name is None else load.base.weights[name]
    return shape if shape is not None and len(shape) == 2 else None


def in_files(base: Base, module: str, path: str = "") -> str | None:
    """The name of a module in the model's files, which have other levels before the layers than a class."""
    if module in base.weights:
        return module
    bare = module.removeprefix("model.")
    inner = bare.removeprefix("language_model.")
    names = (
        path, bare, f"model.{module}", module.removeprefix("transformer."), f"transformer.{module}",
        f"language_model.model.{inner}", f"model.language_model.{bare}",
        module.replace("model.language_model.", "language_model.model."), module.replace("model.", "", 1),
        inner, f"model.{inner}",
    )  # fmt: skip
    return next((name for name in names if name in base.weights), None)
