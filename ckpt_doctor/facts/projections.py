"""What VeRA and PVeRA have in common: two projections for all layers, of the largest sizes among them."""

from __future__ import annotations

from .record import Names, Seen


def other_width(seen: Seen) -> Names:
    """The projection to the output, where it is saved and is not as wide as the widest layer of the file."""
    prefix = f"base_model.{seen.method.name.lower()}_B"
    outs = [
        shape[0] for layer in seen.layers.values() for factor, shape in seen.shapes(layer).items()
        if factor.endswith("vera_lambda_b") and len(shape) == 1
    ]  # fmt: skip
    shape = seen.tensors.get(prefix, ())
    return [prefix] if outs and len(shape) == 2 and shape[0] != max(outs) and seen.value("save_projection") else []
