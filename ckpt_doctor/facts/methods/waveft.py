"""WaveFT: tuners/waveft."""

from __future__ import annotations

from ..record import INIT, LAYOUT, REVIEWED, Method

ALIKE = "the same code since 0.18 (layer.py: WaveFTLayer.get_delta_weight)"

WAVEFT = Method(
    "WAVEFT", REVIEWED,
    tensors=(
        "proportional_parameters=false: waveft_spectrum[n_frequency]",
        "proportional_parameters=true: waveft_spectrum[n]",
    ),
    scale=("scaling", 25.0, ()),
    words={
        "bias": ("all", "waveft_only"),
        "wavelet_family": ("db2", "db3", "db4", "haar", "sym2", "sym3", "sym4", "coif1"),
    },
    harmless={"fan_in_fan_out": LAYOUT, "init_weights": INIT},
    alike={
        "random_loc_seed": "where the frequencies are, drawn alike since 0.18 (layer.py: WaveFTLayer.update_layer)",
        "scaling": ALIKE, "use_idwt": ALIKE, "wavelet_family": ALIKE,
    },
)  # fmt: skip
