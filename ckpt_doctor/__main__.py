"""`python -m ckpt_doctor`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="ckpt-doctor")
