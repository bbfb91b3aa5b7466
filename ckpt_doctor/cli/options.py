"""The options that commands share, each said once, and what they amount to for an adapter."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from ..adapter import AdapterError, Base
from ..adapter.runtimes import unreviewed
from ..files import pins
from ..files.loader import MARKS, Unlisted, find, is_remote, nothing_in, told
from ..reports import OF_EVERY_VERB
from .settings import FAIL_ON, Choice, Config, Settings, find_config, read_config, selectors
from .terminal import busy, complain

Command = TypeVar("Command", bound=Callable[..., Any])
MOST_JOBS = 256
Option = Callable[[Command], Command]


def _config(ctx: click.Context, _: click.Parameter, path: str | None) -> Config:
    """Read the project's file, and give its values to all options that are not said otherwise."""
    try:
        config = read_config(path) if path else find_config()
    except AdapterError as error:
        raise click.UsageError(str(error)) from None
    names = {"for": "asked", "format": "formats"}
    ctx.default_map = {names.get(key, key.replace("-", "_")): value for key, value in config.values.items()}
    return config


def _asked(_: click.Context, __: click.Parameter, specs: tuple[str, ...]) -> frozenset[str] | None:
    try:
        return pins.ids(specs) if specs else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _base(_: click.Context, __: click.Parameter, path: str | None) -> Base | None:
    if path is None:
        return None
    from ..files.base import named_base

    try:
        return named_base(path)
    except AdapterError as error:
        raise click.BadParameter(str(error)) from None


def _selectors(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return selectors(texts)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def variable(name: str) -> dict[str, Any]:
    """What makes an option heed an environment variable, and say so in its help."""
    return {"envvar": f"CKPT_DOCTOR_{name}", "show_envvar": True}


def _listed(_: click.Context, __: click.Parameter, file: str | None) -> tuple[str, ...] | None:
    """The paths in a file; a NUL, which no path has, says that these and no new lines separate them."""
    if file is None:
        return None
    try:
        with click.open_file(file, "rb") as stream:
            text: bytes = stream.read()
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be read: {error.strerror}") from None
    names = text.split(b"\0") if b"\0" in text else (line.rstrip(b"\r") for line in text.split(b"\n"))
    return tuple(os.fsdecode(name) for name in names if name)


class Shard(NamedTuple):
    """One part of several that have each adapter in one of them: the same wherever it stands in a list."""

    number: int
    of: int

    def has(self, path: str) -> bool:
        """Whether this part has the adapter at a path."""
        from hashlib import sha256

        digest = sha256(os.fsencode(os.path.normpath(path).replace(os.sep, "/"))).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1


def _shard(_: click.Context, __: click.Parameter, text: str | None) -> Shard | None:
    if text is None:
        return None
    number, _slash, of = text.partition("/")
    shard = Shard(_whole(number), _whole(of))
    if not 1 <= shard.number <= shard.of:
        raise click.BadParameter(f"{text!r} is no part of several, as 1/8, 2/8 … 8/8")
    return shard


def _jobs(_: click.Context, __: click.Parameter, text: str) -> int:
    """How many, 0 for auto."""
    if text == "auto":
        return 0
    if not 1 <= _whole(text) <= MOST_JOBS:
        raise click.BadParameter(f"{text!r} is neither auto nor a whole number from 1 to {MOST_JOBS}")
    return _whole(text)


def _whole(text: str) -> int:
    """A number of up to nine digits (int takes no more than 4,300); 0 for what is none."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


CONFIG = click.option(
    "--config", type=click.Path(), metavar="FILE", is_eager=True, callback=_config, **variable("CONFIG"),
    help="A file of options, instead of the nearest ckpt-doctor.toml or [tool.ckpt-doctor] of pyproject.toml.",
)  # fmt: skip
FOR = click.option(
    "--for", "asked", multiple=True, metavar="SPEC", callback=_asked, **variable("FOR"),
    help="A runtime that has to accept it: peft (the newest), peft==0.9.0, 'peft>=0.6,<0.10', 'peft==*', installed, "
    "vllm (the newest reviewed), vllm==0.11.0, sglang, llama.cpp, transformers, servers (those four), tgi, lorax, "
    "tensorrt-llm, ollama; or a lock file or requirements that pin them (uv.lock). Repeatable.",
)  # fmt: skip
ADAPTER_NAME = click.option(
    "--adapter-name", default="default", show_default=True, metavar="NAME", **variable("ADAPTER_NAME"),
    help="The name that it will be loaded under; PEFT looks for it within the names of modules.",
)  # fmt: skip
BASE = click.option(
    "--base", type=click.Path(), metavar="PATH", callback=_base, **variable("BASE"),
    help="The base model: a folder, a safetensors file, an index, or config.json. Headers and config only are read. "
    "Without it the local cache of the Hub is looked up where something is undecided; none: not there either.",
)  # fmt: skip
MAX_RANK = click.option(
    "--max-rank", type=click.IntRange(1), metavar="N", **variable("MAX_RANK"),
    help="The rank limit of the server; without it none is assumed.",
)  # fmt: skip
FAIL = click.option(
    "--fail-on", type=click.Choice(FAIL_ON), default="error", show_default=True, **variable("FAIL_ON"),
    help="The least severity that makes the exit code 1.",
)  # fmt: skip
PROVE = click.option(
    "--prove", is_flag=True,
    help="Have the PEFT of --for, or the one that is installed, load it on a skeleton of its model (see prove).",
)  # fmt: skip
FILES_FROM = click.option(
    "--files-from", type=click.Path(), metavar="FILE", callback=_listed,
    help="Scan the paths in this file as well, one a line or separated by NUL; -: from standard input.",
)  # fmt: skip
SHARD = click.option(
    "--shard", metavar="K/N", callback=_shard, **variable("SHARD"),
    help="Scan one part of N: each adapter is in one of them, by its path as it is given here.",
)  # fmt: skip
RESUME = click.option(
    "--resume", type=click.Path(), metavar="FILE", **variable("RESUME"),
    help="Say of unchanged adapters what an earlier run noted in this file, and note the others; needs jsonl.",
)  # fmt: skip
JOBS = click.option(
    "--jobs", metavar="N", default="1", show_default=True, callback=_jobs, **variable("JOBS"),
    help="Processes that examine; auto, as of remote ones: one for each core, where that is quicker. Needs jsonl.",
)  # fmt: skip
DASK = click.option(
    "--dask", metavar="ADDRESS", **variable("DASK"),
    help="Have the workers of this Dask cluster examine them, as tcp://host:8786. Needs jsonl and ckpt-doctor[dask].",
)  # fmt: skip
SELECT = click.option(
    "--select", multiple=True, metavar="CODES", callback=_selectors, **variable("SELECT"),
    help="Tell only these findings: codes, beginnings of codes, or names, as CD1,CD302. Repeatable.",
)  # fmt: skip
IGNORE = click.option(
    "--ignore", multiple=True, metavar="CODES", callback=_selectors, **variable("IGNORE"),
    help="Leave these findings out; wins over --select. Verdicts heed them all the same.",
)  # fmt: skip
VERBOSE = "ckpt_doctor.verbose"
"""Where a context keeps whether --verbose was said, for whoever holds no more than the context."""


def verbose(help_: str) -> Callable[[Command], Command]:
    """The option --verbose, whatever else a command tells with it: the trace of what fails unforeseen."""

    def note(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        ctx.meta[VERBOSE] = value
        return value

    return click.option("-v", "--verbose", is_flag=True, callback=note, help=help_)


QUIET = click.option("-q", "--quiet", is_flag=True, help="Print only what fails.")
SHORT_FORMAT = click.option("--format", "format_", type=click.Choice(OF_EVERY_VERB), default="table", show_default=True)


def _ending(end: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """The check of a file to write, before any work is done; its ending keeps an adapter's file from being named."""

    def check(_: click.Context, __: click.Parameter, file: str | None) -> str | None:
        if file is None:
            return None
        if not file.lower().endswith(end):
            raise click.BadParameter(f"{file!r} does not end in {end}")
        if os.path.isdir(file) or not os.path.isdir(os.path.dirname(file) or "."):
            raise click.BadParameter(f"{file!r} cannot be written: it is a folder, or lies in none that is there")
        return file

    return check


HTML = click.option(
    "--html", "html", type=click.Path(), metavar="FILE", callback=_ending(".html"),
    help="Also write a page to look at in a browser, one file that needs no network.",
)  # fmt: skip
PNG = click.option(
    "--png", "png", type=click.Path(), metavar="FILE", callback=_ending(".png"),
    help="Also write a picture: the map, or the ranks of a run over its steps. Needs ckpt-doctor[plot].",
)  # fmt: skip
TOLERANCE = click.option(
    "--tolerance", type=float, default=1e-6, show_default=True, help="The relative difference allowed in a delta."
)


def judged(command: Command) -> Command:
    """The options that say by what an adapter is judged."""
    for option in (CONFIG, MAX_RANK, BASE, ADAPTER_NAME, FOR):
        command = option(command)
    return command


def choice(ctx: click.Context) -> Choice:
    """By what adapters are judged: options, then environment, then overrides, then the file."""
    values = {key: value for key, value in ctx.params.items() if key in Settings._fields}
    sources = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    given = frozenset(key for key in values if ctx.get_parameter_source(key) in sources)
    return Choice(ctx.params["config"], Settings(**values), given)


def settings(ctx: click.Context, *, warn: bool = True) -> Callable[[str], Settings]:
    """From the folder of an adapter to its settings.

    A release that is asked for and that nobody reviewed is told once, with `warn`.
    """
    chosen = choice(ctx)
    told: set[str] = set()

    def of(folder: str) -> Settings:
        try:
            found = chosen.of(folder)
        except AdapterError as error:
            raise click.UsageError(str(error)) from None
        for id_, sentence in unreviewed(found.asked or ()).items() if warn else ():
            if id_ not in told:
                complain(sentence)
            told.add(id_)
        return found

    return of


def adapters_below(path: str, marks: Collection[str] = MARKS, others: list[str] | None = None) -> list[str]:
    """The adapters at or below a path, by the files that mark them; `others` as of `find`. Raises AdapterError, also
    where there is none.
    """
    folders = find(path, marks, others)
    if not folders:
        raise nothing_in(path)
    return folders


def folders(
    paths: tuple[str, ...], failed: Callable[[str, AdapterError], None], marks: Collection[str] = MARKS, *,
    others: list[str] | None = None,
) -> list[str]:  # fmt: skip
    """The adapters at and below paths, each once; `failed` is told of a path that has none. With a list `others` also
    what was recognised at and below such a path, and the list gets the other folders with weights beside adapters.
    """
    seen: dict[str, str] = {}
    if any(map(is_remote, paths)):
        from ..files import remote

        with busy("listing files"):
            remote.list_all(path for path in paths if is_remote(path))
    for path in paths:
        found: list[str] = []
        beside: list[str] | None = None if others is None else []
        try:
            found = adapters_below(path, marks, beside)
            if others is not None:
                others += beside or []
        except AdapterError as error:
            found = _others(path) if others is not None and not isinstance(error, Unlisted) else []
            if not found:
                failed(told(path), error)
        for folder in found:  # no two of which are one, as links are not followed
            alone = len(paths) == 1 or is_remote(folder)
            seen.setdefault(folder if alone else os.path.realpath(folder), folder)
    return list(seen.values())


def _others(path: str) -> list[str]:
    from ..files.recognise import below

    return below(path)
