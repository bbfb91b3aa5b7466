"""WaveFT: tuners/waveft."""

from __future__ import annotations

from ...adapter.codes import METHOD_BY_RELEASE
from ...adapter.runtimes import PEFT
from ..config_keys import INIT, LAYOUT
from ..names import Names
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED

ALIKE = "the same code since 0.18 (layer.py: WaveFTLayer.get_delta_weight)"


def has_a_least_share(subject: Subject) -> Names:
    """Layers whose share of the frequencies is one, which releases may have rounded to none."""
    if not subject.value("proportional_parameters"):
        return []
    return subject.having(lambda _, shapes: shapes.get("waveft_spectrum") == (1,))


WAVEFT = Method(
    "WAVEFT", REVIEWED,
    tensors=(
        "proportional_parameters=false: waveft_spectrum[n_frequency]",
        "proportional_parameters=true: waveft_spectrum[n]",
    ),
    scale=("scaling", 25.0, ()),
    words={
        "bias": ("all", "waveft_only"),
        "wavelet_family": ("db2", "db3", "db4", "sym2", "sym3", "sym4", "coif1"),
    },
    harmless={"fan_in_fan_out": LAYOUT, "init_weights": INIT},
    alike={
        "random_loc_seed": "where the frequencies are, drawn alike since 0.18 (layer.py: WaveFTLayer.update_layer)",
        "proportional_parameters": "the same shares since 0.18, but for those below one (model.py: WaveFTModel)",
        "scaling": ALIKE, "use_idwt": ALIKE, "wavelet_family": ALIKE,
    },
    rows=(
        Row(
            METHOD_BY_RELEASE, has_a_least_share, "the share of {names} is one frequency, which may be rounded to none",
            "tuners/waveft/model.py: WaveFTModel", undecided=PEFT, keys=("proportional_parameters",),
            read=True,
        ),
    ),
)  # fmt: skip
