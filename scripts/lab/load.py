"""Load adapters in the environment of a PEFT release, and keep what they compute.

usage: PEFT_ENVIRONMENT/bin/python -W ignore load.py OUT NET:ADAPTER...     in the folder where adapters/ and base/ are

One line of JSON an adapter: that this transformers lacks the architecture, or computes another model (`bare` is what it
makes of it), the error, or which keys were left over and which were missed. What it computes is in OUT/ADAPTER.npy; that
is drawn anew where tensors are missing, `random`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import nets
import numpy as np
import peft
import torch
from peft import peft_model

READER = "set_peft_model_state_dict"
READ: list[Any] = []
"""What the last loads of a state dict made of their keys."""


def _listen() -> None:
    module = vars(peft_model)
    read = module[READER]

    def heard(*arguments: Any, **options: Any) -> Any:
        result = read(*arguments, **options)
        READ.append(result)
        return result

    module[READER] = heard


def keys() -> dict[str, list[str]]:
    """The keys that the last load left over, and those of the adapter that it missed."""
    result = READ[-1] if READ else None
    missing = [key for key in getattr(result, "missing_keys", ()) if "default" in key.split(".")]
    return {"unexpected": list(getattr(result, "unexpected_keys", ())), "missing": missing}


def loaded(net: str, folder: str, seed: int) -> torch.Tensor:
    """The output with the adapter."""
    model = nets.built(net)
    torch.manual_seed(seed)
    return nets.run(peft.PeftModel.from_pretrained(model, folder).eval(), net)


def outcome(out: Path, net: str, adapter: str) -> dict[str, Any]:
    """What becomes of an adapter here."""
    READ.clear()
    try:
        first, second = (loaded(net, f"adapters/{adapter}", seed) for seed in (0, 1))
    except Exception as error:
        return {"error": re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]}
    np.save(out / f"{adapter}.npy", first.numpy())
    return {**keys(), "random": not torch.equal(first, second)}


def main() -> None:
    """Load, and say what became of each."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    _listen()
    for pair in sys.argv[2:]:
        net, adapter = pair.split(":")
        if not nets.available(net):
            print(json.dumps({"adapter": adapter, "absent": True}), flush=True)
            continue
        bare = out / f"{net}.bare.npy"
        if not bare.exists():
            np.save(bare, nets.run(nets.built(net), net).numpy())
        print(json.dumps({"adapter": adapter, **outcome(out, net, adapter)}), flush=True)


if __name__ == "__main__":
    main()
