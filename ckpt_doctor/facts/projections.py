"""What VeRA and PVeRA have in common: two projections for all layers, of the largest sizes among them."""

from __future__ import annotations

from .names import Names
from .subject import Subject


def other_width(subject: Subject) -> Names:
    """The projection to the output, where it is saved and is not as wide as the widest layer of the file."""
    prefix = f"base_model.{str(subject.method).lower()}_B"
    outs = [
        shape[0] for layer in subject.layers.values() for factor, shape in subject.shapes(layer).items()
        if factor.endswith("vera_lambda_b") and len(shape) == 1
    ]  # fmt: skip
    shape = subject.tensor_shapes.get(prefix, ())
    return [prefix] if outs and len(shape) == 2 and shape[0] != max(outs) and subject.value("save_projection") else []
