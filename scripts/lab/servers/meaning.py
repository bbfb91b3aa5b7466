"""What adapters mean: the difference of weights, in the names of the model's own files.

usage: ENVIRONMENT/bin/python meaning.py BASE OUT ADAPTER...     in an environment with PEFT and transformers 5

OUT/NAME.safetensors has what an adapter adds to each weight: the products of its pairs, where each names a weight of
the files; else what PEFT merges (experts as parameters, DoRA, names that transformers changes); else, where PEFT does
not take all of it (a prefix is lost), the products again, at the one weight whose name ends alike. What has no such
place has no file.
An adapter ORIGIN+EDIT, an edited copy, means what PEFT makes of it, or what its origin does where PEFT does not take all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", OMP_NUM_THREADS="2")

import deltas
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
transformers.utils.logging.disable_progress_bar()
PAIR = re.compile(r"(?:base_model\.model\.)?(.*)\.lora_(?:embedding_)?([AB])(?:\.weight)?")


class UnknownMeaningError(Exception):
    """Nobody can say what an adapter means."""


class Model:
    """A model of the Hub's files, and the class that is adapted."""

    def __init__(self, base: str) -> None:
        self.folder, self.weights = base, deltas.weights(base)
        named = json.loads(Path(base, "config.json").read_text())["architectures"][0]
        self.kind: Any = getattr(transformers, named, None)
        if named.endswith("Model"):
            self.kind = transformers.AutoModelForCausalLM

    @cached_property
    def before(self) -> deltas.Weights:
        """The model as the class saves it."""
        return self._saved(self._loaded())

    def _loaded(self) -> Any:
        """The model with a head of its own: what is merged into one that is tied would change the embedding as well."""
        model = self.kind.from_pretrained(self.folder, dtype=torch.float32, attn_implementation="eager")
        head = model.get_output_embeddings()
        if head is not None:
            head.weight = torch.nn.Parameter(head.weight.detach().clone())
            model._tied_weights_keys = None
            for config in (model.config, model.config.get_text_config()):
                config.tie_word_embeddings = False
        return model

    @staticmethod
    def _saved(model: Any) -> deltas.Weights:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            return deltas.weights(folder)

    def merged(self, adapter: str) -> deltas.Weights:
        """The difference that PEFT makes. Raises UnknownMeaningError unless it takes the whole adapter."""
        if not self.kind:
            raise UnknownMeaningError
        model = peft.PeftModel.from_pretrained(self._loaded(), adapter)
        keys = model.load_adapter(adapter, "default")
        missing = [key for key in keys.missing_keys if "lora_" in key]
        if missing or keys.unexpected_keys:
            raise UnknownMeaningError
        after = self._saved(model.merge_and_unload())
        zero = torch.zeros(())
        delta = {name: weight - self.before.get(name, zero) for name, weight in after.items()}
        delta = {name: change for name, change in delta.items() if change.abs().max() > deltas.NOTHING}
        if any(name in self.before and name not in self.weights and name != deltas.HEAD for name in delta):
            raise UnknownMeaningError
        return delta

    def named(self, adapter: str) -> deltas.Weights:
        """The products of pairs that name weights. Raises UnknownMeaningError for what is no pair, or has no place."""
        return self._products(adapter, self._weight)

    def alike(self, adapter: str) -> deltas.Weights:
        """The products of pairs, each at the weight whose name ends alike. Raises as `named`."""
        return self._products(adapter, self._place)

    def _products(self, adapter: str, place_of: Callable[[str], str]) -> deltas.Weights:
        config = json.loads(Path(adapter, "adapter_config.json").read_text())
        pairs: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in load_file(Path(adapter, "adapter_model.safetensors")).items():
            match = PAIR.fullmatch(key)
            if not match or config.get("use_dora"):
                raise UnknownMeaningError
            pairs.setdefault(match[1], {})[match[2]] = tensor.float()
        delta = {}
        for name, pair in pairs.items():
            if pair.keys() != {"A", "B"}:
                raise UnknownMeaningError
            place = place_of(name)
            change = (pair["B"] @ pair["A"]) * _scale(config, name)
            shape = self.weights.get(place, self.weights[deltas.embedding(self.weights)]).shape
            if change.shape != shape:
                change = change.T
            if change.shape != shape:
                raise UnknownMeaningError
            delta[place] = change
        return delta

    def _weight(self, name: str) -> str:
        """The weight that is named. Raises UnknownMeaningError if there is none."""
        if f"{name}.weight" in (*self.weights, deltas.HEAD):
            return f"{name}.weight"
        raise UnknownMeaningError

    def _place(self, name: str) -> str:
        """The one weight whose name has the most last parts in common. Raises UnknownMeaningError if there is none."""
        parts = name.split(".")
        if parts[-1] == "lm_head" and deltas.HEAD not in self.weights:
            return deltas.HEAD
        for at in range(len(parts) - 1):
            tail = ".".join((*parts[at:], "weight"))
            found = [key for key in self.weights if key == tail or key.endswith(f".{tail}")]
            if found:
                if len(found) > 1:
                    break
                return found[0]
        raise UnknownMeaningError


def _scale(config: dict[str, Any], name: str) -> float:
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    for pattern, value in (config.get("rank_pattern") or {}).items():
        rank = value if re.match(rf"(.*\.)?({pattern})$", name) else rank
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        alpha = value if re.match(rf"(.*\.)?({pattern})$", name) else alpha
    return float(alpha / (rank**0.5 if config.get("use_rslora") else rank))


def main(base: str, out: str, adapters: list[str]) -> None:
    """Write what each means, as far as that can be said."""
    Path(out).mkdir(parents=True, exist_ok=True)
    model = Model(base)
    for adapter in adapters:
        origin, edited, _ = Path(adapter).name.partition("+")
        ways = (model.merged,) if edited else (model.named, model.merged, model.alike)
        file = Path(out, f"{Path(adapter).name}.safetensors")
        for way in ways:
            try:
                delta = way(adapter)
            except Exception as error:
                print(f"{adapter}: {way.__name__}: {deltas.failure(error)}", file=sys.stderr)
                continue
            save_file({name: change.contiguous() for name, change in delta.items()}, file)
            break
        else:
            if edited and (meant := Path(out, f"{origin}.safetensors")).exists():
                shutil.copy(meant, file)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3:])
