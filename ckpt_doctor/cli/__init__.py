"""The command line; the only package that prints and exits. One module a command, imported when it is the one."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from .. import __version__
from .terminal import colour, complain, discard, lenient, show_trace

COMMANDS = ("scan", "fix", "compare", "together", "ranks", "verify", "prove", "preload", "explain", "rules")


class _Commands(click.Group):
    """The commands, each imported when it is asked for."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. What fails unforeseen ends with 2: 1 would say that something was found.

        An interruption ends with 128 and the number of its signal, as a shell says it.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):  # of who is impatient; click would end with 1
                complain("interrupted")
            sys.exit(130)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except OSError as error:
            complain(f"{error.filename or 'input or output'} failed: {error.strerror}")
            discard(sys.stdout)
        except Exception as error:
            from traceback import format_exc

            from .options import VERBOSE

            show_trace(format_exc() if ctx.meta.get(VERBOSE) else None)
            complain(f"this is a fault of ckpt-doctor, please report it: {type(error).__name__}: {error}")
        sys.exit(2)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{cmd_name}", __name__).command
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Options can also be said in pyproject.toml, under [tool.ckpt-doctor], or in ckpt-doctor.toml; "
    "NO_COLOR and FORCE_COLOR are heeded.",
)
@click.version_option(__version__, package_name="ckpt-doctor", message="ckpt-doctor %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Find what is wrong with fine-tuning adapters, and repair it without changing what they compute.

    \b
    ckpt-doctor scan adapters/                     what is wrong, who rejects it
    ckpt-doctor scan adapters/ --for peft==0.9.0   does it load in what I run?
    ckpt-doctor fix adapter/ fixed/                repair it; --for to go further
    ckpt-doctor fix --in-place adapters/           repair what has an error
    ckpt-doctor compare adapter/ fixed/            do they compute the same?
    ckpt-doctor together first/ second/            can they be merged, swapped, served side by side?
    ckpt-doctor ranks adapter/                     where are the ranks, and where is none left?
    ckpt-doctor verify fixed/                      is it still what was proved?
    ckpt-doctor prove adapter/                     what does the real PEFT make of it?
    ckpt-doctor preload adapter/                   a path that can be loaded
    ckpt-doctor explain CD101                      what does this finding mean?
    ckpt-doctor explain "KeyError: …"              what can this message come from?
    """  # noqa: D301 - \b is how click is told to leave lines as they are
    ctx.color = colour(os.environ)
    lenient(sys.stdout, sys.stderr)
    # numpy's threads wait for each other longer than these small products take
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
