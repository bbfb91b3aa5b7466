"""Make adapters in the environment of a PEFT release, which saves them.

usage: PEFT_ENVIRONMENT/bin/python -W ignore save.py [--served] SEED INDEX...     in the folder where adapters/ and base/ are

One line of JSON an adapter. In its folder lies what it computes as it was trained, expected_output.npy. With --served
they are LoRAs, of the models of served.py.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from random import Random
from typing import Any

import draw
import nets
import numpy as np
import peft
import served
import torch

TRIES = 40
PLAIN = 0.6
"""How many of those for servers have ranks and targets alone."""
SHOWS = 0.01
"""An adapter that changes the output by less proves nothing."""
OF_TRANSFORMERS = {("PREFIX_TUNING", "bloom")}
"""What transformers decides, not PEFT: its pull request 31445 turned the keys of Bloom's cache."""
MOVES = {"OFT": 0.1, "BOFT": 0.1, "HRA": 0.3, "PSOFT": 0.1}
"""How far training moves the weights: turns are small."""


def trained(rng: Random, name: str, methods: Collection[str], plain: float) -> tuple[Any, str, dict[str, Any]]:
    """A model with an adapter of random weights, its method, and the arguments of its config."""
    model = nets.built(name)
    method, settings = draw.drawn(rng, draw.looked_at(model), nets.NETS[name].task, methods, plain)
    config = draw.CONFIGS[method](**settings)
    torch.manual_seed(rng.randrange(1000))
    adapted = peft.get_peft_model(model, config)
    noise = torch.Generator().manual_seed(rng.randrange(1000))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=noise) * MOVES.get(method, 0.3))
    if method == "ADALORA" and rng.random() < 0.6:
        _budget(adapted, name)
    return adapted.eval(), method, settings


def _budget(adapted: Any, name: str) -> None:
    """A few steps of AdaLoRA, whose ranks then stand in rank_pattern."""
    adapted.train()
    for step in range(1, 11):
        torch.autograd.backward(nets.output(adapted(**nets.inputs(name))).pow(2).mean())
        adapted.base_model.update_and_allocate(step)
        adapted.zero_grad()


def attempt(rng: Random, name: str, index: int, methods: Collection[str], plain: float) -> dict[str, Any]:
    """Train an adapter and save it; nothing, where it computes what the model does."""
    bare = nets.run(nets.built(name), name)
    adapted, method, settings = trained(rng, name, methods, plain)
    output = nets.run(adapted, name)
    shown = output.shape != bare.shape or (output - bare).abs().max() > SHOWS
    if (method, name) in OF_TRANSFORMERS or not output.isfinite().all() or not shown:
        return {}
    folder = f"{index:03d}-{method.lower()}-{name}-by{peft.__version__}"
    adapted.save_pretrained(f"adapters/{folder}", safe_serialization=rng.random() > 0.05)
    np.save(f"adapters/{folder}/expected_output.npy", output.numpy())
    drawn = {key: str(value) for key, value in settings.items()}
    return {"name": folder, "base": name, "method": method, "saved_by": peft.__version__, "drawn": drawn}


def saved(seed: str, index: int, names: Collection[str], methods: Collection[str], plain: float) -> dict[str, Any]:
    """Draw a model and a method until the release can make the adapter and it computes something."""
    rng = Random(f"{seed}-{index}")
    name = rng.choice([name for name in names if nets.available(name)])
    for _ in range(TRIES):
        with contextlib.suppress(Exception):  # what does not fit together is drawn again
            if not Path("base", name).exists():
                nets.save_base(name, f"base/{name}")
            row = attempt(rng, name, index, methods, plain)
            if row:
                return row
    return {}


def main(seed: str, *indices: str) -> None:
    """Save, and say what was saved."""
    names, methods, plain = [*nets.NETS], draw.METHODS, 0.0
    if seed == "--served":
        (seed, *indices), names, methods, plain = indices, [*served.NETS], ("LORA",), PLAIN
        nets.NETS.update(served.NETS)
    for index in map(int, indices):
        print(json.dumps(saved(seed, index, names, methods, plain)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
