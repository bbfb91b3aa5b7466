"""Make adapters in the environment of a PEFT release, which saves them.

usage: PEFT_ENVIRONMENT/bin/python -W ignore save.py SEED INDEX...     in the folder where adapters/ and base/ are

One line of JSON an adapter. In its folder lies what it computes as it was trained, expected_output.npy.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import draw
import nets
import numpy as np
import peft
import torch

TRIES = 40
SHOWS = 0.01
"""An adapter that changes the output by less proves nothing."""
OF_TRANSFORMERS = {("PREFIX_TUNING", "bloom")}
"""What transformers decides, not PEFT: its pull request 31445 turned the keys of Bloom's cache."""
MOVES = {"OFT": 0.1, "BOFT": 0.1, "HRA": 0.3, "PSOFT": 0.1}
"""How far training moves the weights: turns are small."""


def trained(rng: Random, name: str) -> tuple[Any, str, dict[str, Any]]:
    """A model with an adapter of random weights, its method, and the arguments of its config."""
    model = nets.built(name)
    method, settings = draw.drawn(rng, draw.looked_at(model), nets.NETS[name].task)
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


def attempt(rng: Random, name: str, index: int) -> dict[str, Any]:
    """Train an adapter and save it; nothing, where it computes what the model does."""
    bare = nets.run(nets.built(name), name)
    adapted, method, settings = trained(rng, name)
    output = nets.run(adapted, name)
    shown = output.shape != bare.shape or (output - bare).abs().max() > SHOWS
    if (method, name) in OF_TRANSFORMERS or not output.isfinite().all() or not shown:
        return {}
    folder = f"{index:03d}-{method.lower()}-{name}-by{peft.__version__}"
    adapted.save_pretrained(f"adapters/{folder}", safe_serialization=rng.random() > 0.05)
    np.save(f"adapters/{folder}/expected_output.npy", output.numpy())
    drawn = {key: str(value) for key, value in settings.items()}
    return {"name": folder, "base": name, "method": method, "saved_by": peft.__version__, "drawn": drawn}


def saved(seed: str, index: int) -> dict[str, Any]:
    """Draw until the release can make it and it computes something."""
    rng = Random(f"{seed}-{index}")
    name = rng.choice([name for name in nets.NETS if nets.available(name)])
    if not Path("base", name).exists():
        nets.save_base(name, f"base/{name}")
    for _ in range(TRIES):
        with contextlib.suppress(Exception):  # what does not fit together is drawn again
            row = attempt(rng, name, index)
            if row:
                return row
    return {}


def main() -> None:
    """Save, and say what was saved."""
    for index in map(int, sys.argv[2:]):
        print(json.dumps(saved(sys.argv[1], index)), flush=True)


if __name__ == "__main__":
    main()
