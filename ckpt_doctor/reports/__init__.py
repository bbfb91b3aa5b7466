"""One module a format, with one function a verb. It is added by a module with a function `scan`, and its name here."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from ..verbs.report import Report

FORMATS = ("table", "json", "jsonl", "sarif", "junit", "github", "markdown", "parquet")
OF_EVERY_VERB = ("table", "json")
"""Those that have the functions `fix`, `compare` and `verify` as well."""


class Style(NamedTuple):
    """How the table for a person looks: columns of the terminal (None: lines are not wrapped), how much is told
    (-1 only what fails, 0, 1 everything), whether the rank of every layer is printed, and the beginning that all paths
    have, which a row leaves out.
    """

    width: int | None = None
    level: int = 0
    layers: bool = False
    root: str = ""


BINARY = ("parquet",)
"""Those that are no text, and need a file."""


def scan(format_: str, reports: Iterable[Report], style: Style) -> Iterator[Any]:
    """A scan in pieces: texts that each end a line, or bytes of a binary format. `table`, `jsonl` and `parquet` hold no
    more than a few reports at a time.
    """
    module = import_module(f".{format_}", __name__)
    pieces: Iterator[Any] = module.scan(reports, style) if format_ == "table" else module.scan(reports)
    return pieces
