"""FourierFT: tuners/fourierft."""

from __future__ import annotations

from ..config_keys import INIT, LAYOUT
from ..record import Method
from . import REVIEWED

FOURIERFT = Method(
    "FOURIERFT", REVIEWED,
    tensors=("fourierft_spectrum[n_frequency]",),
    scale=("scaling", 150.0, ()),
    words={"bias": ("all", "fourier_only")},
    harmless={"fan_in_fan_out": LAYOUT, "init_weights": INIT},
    alike={
        "random_loc_seed": "where the frequencies are, drawn alike since 0.12 (layer.py: FourierFTLayer.update_layer)",
        "scaling": "a factor of the delta since 0.12 (layer.py: FourierFTLayer.get_delta_weight)",
    },
    starts_random=True,
)  # fmt: skip
