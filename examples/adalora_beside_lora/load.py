"""Load adapters with what this environment has, and print a line of JSON for each: what it gives, or why nothing.

usage: python load.py peft|transformers ADAPTER=LOGITS...        In the folder that train.py wrote.

`loss` is that of the sentences in sentences.npy, `difference` the largest from the logits in the file LOGITS.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def load(how: str, adapter: str) -> Any:
    """The model with an adapter."""
    model = AutoModelForCausalLM.from_pretrained("model")
    if how == "transformers":
        model.load_adapter(adapter)
        return model
    import peft

    return peft.PeftModel.from_pretrained(model, adapter)


def outcome(how: str, adapter: str, logits: str) -> dict[str, Any]:
    """What is printed of an adapter."""
    words = torch.from_numpy(np.load("sentences.npy"))
    try:
        with torch.no_grad():
            found = load(how, adapter).eval()(input_ids=words).logits
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    loss = torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), words[:, 1:].flatten())
    return {"loss": float(loss), "difference": float((found - torch.from_numpy(np.load(logits))).abs().max())}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for pair in sys.argv[2:]:
        print(json.dumps(outcome(sys.argv[1], *pair.split("="))))
