"""PSOFT: tuners/psoft."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE
from ...adapter.runtimes import NONE, between, since
from ..config_keys import DROPOUT, INIT, LAYOUT
from ..record import ANEW, Differs, Method
from ..subject import Subject
from . import REVIEWED


def is_low_rank(subject: Subject) -> bool:
    """The decomposition of the base weight is by random projection."""
    return bool(subject.value("psoft_svd") == "lowrank")


ALIKE = "the same code since 0.19 (layer.py: OrthLayer)"

PSOFT = Method(
    "PSOFT", REVIEWED,
    tensors=(
        "psoft_orth=true: psoft_R.weight[tri(r)]",
        "psoft_orth=false: psoft_R.weight[r r]",
        "psoft_mag_a=true: psoft_R.vector_a[r]",
        "psoft_mag_b=true: psoft_R.vector_b[r]",
    ),
    scale=("psoft_alpha", 32, ("r",)),
    nullable=("psoft_svd_lowrank_niter", "random_seed", "num_cayley_neumann_terms"),
    words={"ab_svd_init": ("pissa_init",), "psoft_svd": ("lowrank",)},
    kinds={"cayley_neumann_eps": (float, int)},
    harmless={"fan_in_fan_out": LAYOUT, "init_weights": INIT, "psoft_dropout": DROPOUT},
    alike={
        "ab_svd_init": "the same code since 0.19 (layer.py: PsoftLayer._build_psoft_ab_cache_buffers)",
        "cayley_neumann_eps": ALIKE, "num_cayley_neumann_terms": ALIKE, "use_cayley_neumann": ALIKE,
        "psoft_alpha": "alpha / r since 0.19 (layer.py: PsoftLayer.update_layer)",
    },
    takes_default=NONE,
    rows=(
        Differs(
            METHOD_BY_RELEASE, {between("0.19", "0.19"): ANEW, since("0.20"): "by random_seed"}, is_low_rank,
            "PEFT 0.19 computes a low-rank decomposition that differs with each load",
            "tuners/psoft/layer.py: PsoftLayer._compute_svd_factors",
            ("psoft_svd", "psoft_svd_lowrank_niter", "random_seed"),
        ),
    ),
)  # fmt: skip
