"""For a data frame or a database: a row for each adapter and finding, in a file of Apache Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..adapter import AdapterError
from ..adapter.findings import verdict
from ..adapter.runtimes import PEFT, order
from ..verbs.report import Report, named_release
from .json import finding_object, head, place, written
from .wording import Tally

ROWS = 10_000
"""Rows of a group, which are held until it is written."""
TEXT, TEXTS, NUMBER, TRUTH = "text", "list of text", "int64", "bool"
OF_FINDINGS = {
    "code": TEXT, "name": TEXT, "severity": TEXT, "message": TEXT, "rejected_by": TEXTS, "misloaded_by": TEXTS,
    "undecided_for": TEXTS, "needs": TEXT, "fixable": TRUTH, "option": TEXT, "remedy": TEXT,
}  # fmt: skip
"""Columns that are null where nothing was found, with their types."""
COLUMNS = {
    "path": TEXT, "error": TEXT, "outcome": TEXT, "failing": TRUTH, "method": TEXT, "saved_by": TEXT,
    "base_model": TEXT, "layers": NUMBER, "least_rank": NUMBER, "largest_rank": NUMBER, "accepted_by": TEXTS,
    "repairable": TRUTH, "next": TEXT, "command": TEXT, **OF_FINDINGS,
}  # fmt: skip
REQUIRED = ("path", "failing", "accepted_by", "repairable", "next")
"""Those that are never null."""


class Lines:
    """The rows of reports as text, which another process makes and a journal keeps."""

    def line(self, report: Report) -> str:
        """All rows of one adapter."""
        return written({"rows": rows(report)})


def rows(report: Report) -> list[dict[str, Any]]:
    """One adapter: a row for each finding that is shown, or one without."""
    adapter, way = report.adapter, report.next[0]
    ranks = [layer.rank for layer in report.layers.values() if layer.rank is not None]
    name = (adapter.config or {}).get("base_model_name_or_path") if adapter else None
    one = {
        "path": place(report.path),
        "error": report.error,
        "outcome": report.outcome or None,
        "failing": bool(report.failing),
        "method": adapter.peft_type if adapter else None,
        "saved_by": named_release(adapter) if adapter else None,
        "base_model": name if isinstance(name, str) else None,
        "layers": len(report.layers) if adapter else None,
        "least_rank": min(ranks, default=None),
        "largest_rank": max(ranks, default=None),
        "accepted_by": [id_ for id_ in order(PEFT | (report.asked or frozenset())) if _accepts(id_, report)],
        "repairable": report.repairable,
        "next": way.kind,
        "command": way.command or None,
    }
    found = [{key: value for key, value in finding_object(f).items() if key in OF_FINDINGS} for f in report.shown]
    return [{**one, **finding} for finding in found or [dict.fromkeys(OF_FINDINGS)]]


def _accepts(id_: str, report: Report) -> bool:
    return report.subject is not None and verdict(id_, report.findings) == "accepts"


def scan(reports: Iterable[Report]) -> Iterator[bytes]:
    """The file of a scan, a group of rows after the other. Raises AdapterError where pyarrow is not there."""
    return packed(rows(report) for report in reports)


def whole(lines: Iterable[str], _: Tally) -> Iterator[bytes]:
    """The same of what `Lines` made. Raises AdapterError."""
    return packed(json.loads(line)["rows"] for line in lines)


def packed(adapters: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """The file of the rows of adapters. Raises AdapterError."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise AdapterError("--format parquet needs pyarrow: pip install 'ckpt-doctor[parquet]'") from None
    types = {TEXT: pyarrow.string(), NUMBER: pyarrow.int64(), TRUTH: pyarrow.bool_()}
    types[TEXTS] = pyarrow.list_(pyarrow.string())
    schema = pyarrow.schema(
        [pyarrow.field(name, types[kind], nullable=name not in REQUIRED) for name, kind in COLUMNS.items()],
        {f"ckpt_doctor.{key}": json.dumps(value) for key, value in head().items()},
    )
    sink = _Sink()
    with ParquetWriter(sink, schema, compression="zstd") as writer:
        group: list[dict[str, Any]] = []

        def flush() -> bytes:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            group.clear()
            return sink.taken()

        for found in adapters:
            group += [{key: _encodable(value) for key, value in row.items()} for row in found]
            if len(group) >= ROWS:
                yield flush()
        if group:
            yield flush()
    yield sink.taken()


def _encodable(value: Any) -> Any:
    """A text that UTF-8 can write: what it has none for, as a byte of a path that is no text, as an escape."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value


class _Sink:
    """What a writer writes, until it is taken."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.closed = False

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        """All since this was asked before."""
        held = bytes(self._held)
        self._held.clear()
        return held
