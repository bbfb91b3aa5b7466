"""The terminal: its colour and width, what goes to which file, and how long work shows that it goes on."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO, TypeVar

import click

from ..adapter import AdapterError

Item = TypeVar("Item")
PATIENCE = 1.0  # seconds before progress is shown
GONE = "\r\033[K"  # what clears a line
PAUSE = 0.1  # seconds between two states of it


def colour(environ: Mapping[str, str]) -> bool | None:
    """Whether to write colours; None where that depends on who reads. NO_COLOR wins over FORCE_COLOR."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return True if environ.get("FORCE_COLOR", "0") != "0" else None


def width() -> int | None:
    """Columns of the terminal that reads standard output; None for a pipe or a file, unless COLUMNS is set."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    if not watches(sys.stdout):
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def watches(stream: TextIO | None) -> bool:
    """Whether a person reads a stream; nobody does where it is closed."""
    return stream is not None and stream.isatty()


def lenient(*streams: TextIO | None) -> None:
    """Have what a stream cannot encode written as an escape, which JSON has too; it is no reason to fail."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard(stream: TextIO | None) -> None:
    """Drop what a stream still holds: Python writes it at its end, and where that fails exits with 120."""
    if stream is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):  # a stream without a file, or closed
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def complain(message: str) -> None:
    """One line on standard error."""
    from ..reports.text import clean

    click.echo(f"ckpt-doctor: {clean(message)}", err=True)


def show_trace(trace: str | None) -> None:
    """Python's account of what failed unforeseen, on standard error."""
    from ..reports.text import clean

    for line in (trace or "").splitlines():
        click.echo(clean(line), err=True)


def watched(adapters: Iterable[Item], total: int, *, quiet: bool) -> Iterator[Item]:
    """The adapters one by one; where that takes long and a person watches, standard error says how far it is, how many
    are done in a second, and how long the rest takes at that rate.
    """
    if quiet or not watches(sys.stderr):
        yield from adapters
        return
    start = last = time.monotonic()
    visible = False
    for done, adapter in enumerate(adapters):
        now = time.monotonic()
        if done and now - start > PATIENCE and now - last > PAUSE:
            rate = done / (now - start)
            pace = f"{rate:{'.0f' if rate >= 10 else '.1f'}} a second, {spell(round((total - done) / rate))} left"
            click.echo(f"\r{done} of {total} adapters, {pace}\033[K", err=True, nl=False, color=True)
            last, visible = now, True
        yield adapter
    if visible:
        click.echo(GONE, err=True, nl=False, color=True)


def spell(seconds: int) -> str:
    """A time for a person: `50 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def busy(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Say on standard error what is being done, and for how long, where a person watches; and clear that in the end."""
    if quiet or not watches(sys.stderr):
        yield
        return
    from ..reports.text import clean

    done = threading.Event()

    def tell() -> None:
        seconds = 0
        while not done.wait(PATIENCE):
            seconds += 1
            click.echo(f"\r{clean(what)}, {seconds} s", err=True, nl=False)
        if seconds:
            click.echo(GONE, err=True, nl=False, color=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


@contextmanager
def clean_end() -> Iterator[None]:
    """Have SIGTERM end what stages files as Ctrl-C does, so that none stays: SystemExit with 143.

    Not where a program that calls us has said what SIGTERM does, nor beside its main thread, where that cannot be said.
    """
    import signal  # a scan stages nothing, and starts without

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would stop the cleaning
        sys.exit(128 + signal.SIGTERM)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def print_to(file: str | None, pieces: Iterable[str]) -> None:
    """Write lines to standard output as they come, or to a file: whole, or not at all. Raises AdapterError."""
    if file is None:
        for piece in pieces:
            click.echo(piece, color=None if "\033" in piece else True)  # which has none to look for
        return
    with _whole(file, "w", "utf-8", "backslashreplace") as stream:
        for piece in pieces:
            click.echo(piece, file=stream, color=False)


def write_to(file: str, pieces: Iterable[bytes]) -> None:
    """Write bytes to a file: whole, or not at all. Raises AdapterError."""
    with _whole(file, "wb") as stream:
        for piece in pieces:
            stream.write(piece)


@contextmanager
def _whole(file: str, mode: str, encoding: str | None = None, errors: str | None = None) -> Iterator[IO[Any]]:
    """A file that gets its name, in the place of an old one, when all of it is written. click's own atomic files get it
    also where the writing fails.
    """
    from shutil import copymode

    place = os.path.realpath(file)  # of a pipe behind /dev/stdout that is no name
    part = f"{place}.{os.getpid()}.part"
    try:
        if os.path.exists(file) and not os.path.isfile(file):  # a pipe or a device, which has no place
            with open(file, mode, encoding=encoding, errors=errors) as stream:
                yield stream
            return
        with clean_end():
            try:
                with open(part, mode.replace("w", "x"), encoding=encoding, errors=errors) as stream:
                    yield stream
                if os.path.exists(place):
                    copymode(place, part)
                os.replace(part, place)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part)
                raise
    except OSError as error:
        raise AdapterError(f"{file} cannot be written: {error.strerror}") from None
