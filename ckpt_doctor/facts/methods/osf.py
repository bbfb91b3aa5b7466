"""OSF: tuners/osf."""

from __future__ import annotations

from ...adapter.codes import SHAPE_MISMATCH
from ...adapter.runtimes import NONE, PEFT
from ..config_keys import INIT
from ..names import Names, pattern_value
from ..record import Method, Row
from ..subject import Subject
from . import OPTIONAL, REVIEWED


def keeps_otherwise(subject: Subject) -> Names:
    """Layers whose low part does not have the singular vectors beyond effective_rank."""
    misfits = []
    for module, layer in subject.layers.items():
        shapes = subject.shapes(layer)
        kept = pattern_value(subject.config.get("rank_pattern"), module, subject.config.get("effective_rank"))
        ends = [shapes.get("osf_svd_params.U_low", ())[:1], shapes.get("osf_svd_params.V_low", ())[1:]]
        low = shapes.get("osf_svd_params.S_low", ())
        if type(kept) is int and all(ends) and low and min(ends)[0] - kept != low[0]:
            misfits.append(module)
    return misfits


OSF = Method(
    "OSF", REVIEWED,
    tensors=("osf_svd_params.U_low[out n] osf_svd_params.S_low[n] osf_svd_params.V_low[n in]",),
    words={"init_weights": (None,)},
    kinds={"effective_rank": (int,), "rank_pattern": (dict,)},
    harmless={"init_weights": INIT},
    targets=OPTIONAL,
    takes_default=NONE,
    rows=(
        Row(
            SHAPE_MISMATCH, keeps_otherwise, "the shapes of the tensors are not what the config says for {names}",
            "tuners/osf/layer.py: OSFLayer.update_layer", rejects=PEFT, keys=("effective_rank", "rank_pattern"),
        ),
    ),
)  # fmt: skip
