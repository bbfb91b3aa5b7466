"""Weights of a folder, what an adapter adds to them, and whether a server adds the same. Runs in a server's environment."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

NEAR = 1e-3
"""How far two deltas of one weight are apart, by the larger."""
NOTHING = 1e-7
SHOWN = 3
EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight")
HEAD = "lm_head.weight"

Weights = dict[str, torch.Tensor]


def weights(folder: str | Path) -> Weights:
    """All tensors of a folder's safetensors files, as float32."""
    files = sorted(Path(folder).glob("*.safetensors"))
    return {name: tensor.float() for file in files for name, tensor in load_file(file).items()}


def embedding(model: Weights) -> str:
    """The name of the embedding of tokens, which a tied head shares."""
    return next(name for name in model if name.endswith(EMBEDDINGS))


def added(model: Weights, delta: Weights) -> Weights:
    """The weights of the merged model, apart from those that the model has not: a bias, the head of one that is tied."""
    return {name: weight + delta[name] if name in delta else weight for name, weight in model.items()}


class Loader:
    """A server's own loader of a model's weights: what it makes of them, by its own names.

    `model` is the server's, with a method `load_weights`; `base` the weights of the model's files. What the loader
    cannot take (a tower that a newer transformers has renamed) is left out.
    """

    def __init__(self, model: Any, base: Weights) -> None:
        self.model, self.base = model, base
        self.left_out: set[str] = set()
        try:
            self.before = self._loaded(base)
        except Exception:
            for name, tensor in base.items():
                try:
                    self.model.load_weights(iter([(name, tensor.clone())]))
                except Exception:
                    self.left_out.add(name)
            self.before = self._loaded(base)

    def _loaded(self, weights: Weights) -> Weights:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()
        taken = [(name, tensor.clone()) for name, tensor in weights.items() if name not in self.left_out]
        self.model.load_weights(iter(taken))
        return {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    def _changes(self, delta: Weights) -> Weights:
        after = self._loaded(added(self.base, delta))
        return {name: weight - self.before[name] for name, weight in after.items()}

    def wanted(self, delta: Weights) -> Weights:
        """What a delta adds, in the server's names; what has no place in the server, in the files'."""
        taken = {name: change for name, change in delta.items() if name in self.base and name not in self.left_out}
        changes = self._changes(taken)
        if _norm(changes) < (1 - NEAR) * _norm(taken):  # a loader reorders and pads; this one passes over some
            taken = {name: change for name, change in taken.items() if _norm(self._changes({name: change}))}
        return changes | {name: change for name, change in delta.items() if name not in taken}


def _norm(weights: Weights) -> float:
    return sqrt(sum(float(weight.double().square().sum()) for weight in weights.values()))


def differing(wanted: Weights, applied: Weights) -> list[str]:
    """The weights to which a server adds something else than the adapter means, with how far that is off."""
    lines = []
    for name in sorted(wanted.keys() | applied.keys()):
        want, apply = wanted.get(name), applied.get(name)
        most = [float(each.abs().max()) if each is not None and each.numel() else 0.0 for each in (want, apply)]
        if max(most) <= NOTHING:
            continue
        off = max(most)
        if want is not None and apply is not None and want.dim() == apply.dim():
            off = float((_padded(want, apply) - _padded(apply, want)).abs().max())
        if not off <= NEAR * max(most):
            lines.append(f"{name}: {most[0]:.3g} is meant, {most[1]:.3g} applied, {off:.3g} off")
    return lines


def _padded(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Rows and columns of zeros up to the other's size: servers pad vocabularies."""
    sizes = [max(pair) for pair in zip(tensor.shape, other.shape, strict=True)]
    padded = torch.zeros(sizes)
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    return padded


def jobs() -> Iterator[tuple[str, Path | None]]:
    """The adapters of the command line, each with the file of what it means: ADAPTER:MEANING or ADAPTER."""
    for job in sys.argv[2:]:
        adapter, _, meaning = job.partition(":")
        yield adapter, Path(meaning) if meaning and Path(meaning).exists() else None


def say(adapter: str, **row: Any) -> None:
    """One line of JSON for an adapter."""
    print(json.dumps({"adapter": adapter, **row}), flush=True)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def failure(error: BaseException) -> str:
    """An error in a line."""
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]


def tell(apply: Callable[[str], Weights], wanted: Callable[[Weights], Weights]) -> None:
    """Give each adapter to the server, and say what became of it.

    `apply` loads one and returns what the server adds to its weights; `wanted` says what it should, of the deltas in
    the names of the model's files.
    """
    for adapter, meaning in jobs():
        try:
            applied = apply(adapter)
        except BaseException as error:  # a server may raise anything, and exit
            say(adapter, outcome="rejects", why=failure(error))
            continue
        if meaning is None:
            say(adapter, outcome="loads", why="what it means is not known")
            continue
        try:
            lines = differing(wanted(load_file(meaning)), applied)
        except Exception as error:
            say(adapter, outcome="loads", why=failure(error))
            continue
        say(adapter, outcome="misloads" if lines else "accepts", why="; ".join(lines[:SHOWN]))
