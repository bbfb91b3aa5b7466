"""AdaMSS: tuners/adamss. Its tensors are told from others, and nothing is judged."""

from __future__ import annotations

from ..record import Method

ADAMSS = Method("ADAMSS", tensors=("adamss_A.0[r *] adamss_newB[...]?",))
