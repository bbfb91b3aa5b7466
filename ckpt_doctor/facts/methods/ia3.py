"""IA3: tuners/ia3."""

from __future__ import annotations

from collections.abc import Mapping

from ...adapter.codes import CONVOLUTION, FEEDFORWARD_UNTARGETED, SHAPE_MISMATCH, UNCLEAR_TARGET
from ...adapter.runtimes import PEFT, between, since, upto
from ..config_keys import INIT, LAYOUT
from ..names import Names, targets
from ..record import Method, Row
from ..subject import Subject
from . import REVIEWED


def is_contradicted(subject: Subject) -> Names:
    """Layers whose vector is of the input where feedforward_modules says output, or the other way round."""
    misfits = []
    feedforward = subject.config.get("feedforward_modules")
    for module, layer in subject.layers.items():
        shape = subject.shapes(layer).get("ia3_l", ())
        is_input = bool(feedforward) and targets(feedforward, module)
        turned = len(shape) == 2 and (1 not in shape if feedforward is None else shape[0 if is_input else 1] != 1)
        if len(shape) < 2 or 0 in shape or turned:
            misfits.append(module)
    return misfits


def is_untargeted(subject: Subject) -> bool:
    """feedforward_modules lists what target_modules does not."""
    names, target = subject.config.get("feedforward_modules"), subject.config.get("target_modules")
    return isinstance(names, list) and isinstance(target, list) and not {*map(str, names)} <= {*map(str, target)}


def is_null(subject: Subject) -> bool:
    """feedforward_modules is null, which PEFT then looks up by the type of the base model."""
    return subject.value("feedforward_modules") is None and not subject.model_type


def of_2d(subject: Subject) -> Names:
    """Layers that are a Conv2d."""
    return subject.having(lambda _, shapes: len(shapes.get("ia3_l", ())) == 4)


def without_bias_2d(subject: Subject) -> Names:
    """Layers that are a Conv2d without a bias in the base model."""
    base = subject.base
    return [m for m in of_2d(subject) if m in base.weights and m not in base.biases] if base else []


def perhaps_without_bias_2d(subject: Subject) -> Names:
    """Layers that are a Conv2d, of which the base model does not tell whether they have a bias."""
    weights = subject.base.weights if subject.base else {}
    return [module for module in of_2d(subject) if module not in weights]


def of_3d(subject: Subject) -> Names:
    """Layers that are a Conv3d."""
    return subject.having(lambda _, shapes: len(shapes.get("ia3_l", ())) == 5)


def sides(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The side that the vector of a linear layer scales."""
    shape = shapes.get("ia3_l", ())
    return (max(shape),) if len(shape) == 2 and 1 in shape else ()


IA3 = Method(
    "IA3", REVIEWED,
    tensors=("ia3_l[...]",),
    sides=sides,
    kinds={"feedforward_modules": (list, str)},
    harmless={
        "fan_in_fan_out": LAYOUT, "init_ia3_weights": INIT,
        "exclude_modules": "a vector that nothing was loaded into is ones (layer.py: IA3Layer.reset_ia3_parameters)",
    },
    rows=(
        Row(
            SHAPE_MISMATCH, is_contradicted,
            "the shapes of the tensors are not what feedforward_modules says for {names}",
            "tuners/ia3/layer.py: IA3Layer.update_layer", rejects=PEFT, keys=("feedforward_modules",),
        ),
        Row(
            FEEDFORWARD_UNTARGETED, is_untargeted, "feedforward_modules is not a part of target_modules",
            "tuners/ia3/config.py: IA3Config.__post_init__", rejects=since("0.6"), keys=("feedforward_modules",),
        ),
        Row(
            UNCLEAR_TARGET, is_null, "feedforward_modules is null: it is up to the base model",
            "tuners/ia3/model.py: IA3Model._prepare_adapter_config", undecided=PEFT, keys=("feedforward_modules",),
        ),
        Row(
            CONVOLUTION, of_2d, "{names} is a Conv2d, which IA3 adapts from PEFT 0.6 on",
            "tuners/ia3/model.py: IA3Model._find_and_replace", rejects=upto("0.5"),
        ),
        Row(
            CONVOLUTION, without_bias_2d, "{names} has no bias, and PEFT 0.6 gives it a random one",
            "tuners/ia3/layer.py: Conv2d.__init__", misloads=between("0.6", "0.6"),
        ),
        Row(
            CONVOLUTION, perhaps_without_bias_2d, "{names} may have no bias, and PEFT 0.6 would give it a random one",
            "tuners/ia3/layer.py: Conv2d.__init__", undecided=between("0.6", "0.6"),
        ),
        Row(
            CONVOLUTION, of_3d, "{names} is a Conv3d, which IA3 adapts from PEFT 0.14 on",
            "tuners/ia3/model.py: IA3Model._create_new_module", rejects=upto("0.13"),
        ),
    ),
)  # fmt: skip
