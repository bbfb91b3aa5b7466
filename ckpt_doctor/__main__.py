"""The program `ckpt-doctor`, and `python -m ckpt_doctor`."""

from __future__ import annotations

import gc


def run() -> None:
    """Start the command line. What is imported for it stays, so no garbage collection looks at it: a tenth faster."""
    gc.disable()
    from .cli import main

    gc.freeze()
    gc.enable()
    main(prog_name="ckpt-doctor")


if __name__ == "__main__":
    run()
