"""LoHa: tuners/loha."""

from __future__ import annotations

from ...adapter.codes import CONVOLUTION, SCALE_BY_RELEASE, SHAPE_MISMATCH
from ...adapter.runtimes import PEFT, between, since, upto
from ..config_keys import DROPOUT, INIT
from ..lycoris import apart, conv1d_of_the_base, decomposed_unasked, has_scales, joint, may_be_conv1d, old_config
from ..names import Names
from ..record import Differs, Method, Row
from ..subject import Subject
from . import REVIEWED


def of_1d(subject: Subject) -> Names:
    """Layers whose kernel is that of a Conv1d, or that are one in the base model."""

    def flat(shape: tuple[int, ...]) -> bool:
        return len(shape) == 4 and shape[3] == 1 < shape[2]

    kernels = subject.having(lambda _, shapes: flat(shapes.get("hada_t1", ())))
    return [*dict.fromkeys([*kernels, *conv1d_of_the_base(subject)])]


LOHA = Method(
    "LOHA", REVIEWED,
    tensors=(
        "hada_w1_a[out r] hada_w1_b[r in] hada_w2_a[out r] hada_w2_b[r in]"
        " | hada_t1[r r k l] hada_w1_a[r out] hada_w1_b[r in] hada_t2[r r k l] hada_w2_a[r out] hada_w2_b[r in]",
    ),
    scale=("alpha", 8, ("r",)),
    earlier=(upto("0.14"), old_config),
    nullable=("rank_dropout", "module_dropout"),
    harmless={"init_weights": INIT, "module_dropout": DROPOUT, "rank_dropout": DROPOUT},
    alike={
        "use_effective_conv2d": "of convolutions alone, whose kernels show it (layer.py: LoHaLayer.update_layer)",
    },
    rows=(
        Differs(
            SCALE_BY_RELEASE, {between("0.6", "0.14"): joint, since("0.15"): apart}, has_scales,
            "releases scale the layers by different numbers", "tuners/loha/model.py: LoHaModel._create_and_replace",
            ("alpha", "r", "alpha_pattern", "rank_pattern"),
        ),
        Row(
            CONVOLUTION, of_1d, "{names} is a Conv1d, which LoHa adapts from PEFT 0.18 on",
            "tuners/lycoris_utils.py: LycorisTuner._create_new_module", rejects=upto("0.17"),
        ),
        Row(
            CONVOLUTION, may_be_conv1d, "{names} may be a Conv1d, which LoHa adapts from PEFT 0.18 on",
            "tuners/lycoris_utils.py: LycorisTuner._create_new_module", undecided=upto("0.17"),
        ),
        Row(
            SHAPE_MISMATCH, decomposed_unasked, "{names} has a kernel of its own, without use_effective_conv2d",
            "tuners/loha/layer.py: LoHaLayer.update_layer", rejects=PEFT, keys=("use_effective_conv2d",),
        ),
    ),
)  # fmt: skip
