"""Convert adapters by llama.cpp's own script, and compare what the model computes with them with the merged model.

usage: ENVIRONMENT/bin/python in_llama_cpp.py BASE ADAPTER:MEANING...     One line of JSON an adapter.

The merged model is converted and run by the same program. A model runs in a process of its own: some adapters abort it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

HOME = Path(sys.prefix)
SOURCE = HOME / "source/vendor/llama.cpp"
os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", OMP_NUM_THREADS="1", LLAMA_CPP_LIB_PATH=str(HOME / "build/bin")
)
sys.path[:0] = [str(SOURCE), str(SOURCE / "gguf-py"), str(HOME / "source")]

import deltas
import gguf
import numpy as np
import torch
from conversion import ModelBase, get_model_class
from safetensors.torch import load_file, save_file

TOKENS = (1, 5, 9, 3, 7, 11, 2, 8)
NEAR = 2e-3
"""How far outputs may be apart, by what the adapter changes of them."""
LEAST = 1e-3
WARNING = 3


class RejectedError(Exception):
    """What llama.cpp says, or how it dies."""


@contextmanager
def captured() -> Iterator[StringIO]:
    """What the converter prints and logs."""
    text = StringIO()
    logger = logging.getLogger()
    logger.handlers[:] = [logging.StreamHandler(text)]
    with redirect_stderr(text), redirect_stdout(text):
        yield text


def convert_model(folder: Path, out: Path) -> None:
    """Convert a model, without the tokenizer that a tiny one has not."""
    config = ModelBase.load_hparams(folder, False)
    text = {**config, **config.get("text_config", {})}
    kind: Any = get_model_class(config["architectures"][0].replace("GPT2Model", "GPT2LMHeadModel"))

    def set_vocab(self: Any) -> None:
        self.gguf_writer.add_tokenizer_model("none")
        self.gguf_writer.add_vocab_size(text["vocab_size"])

    bare = type(kind.__name__, (kind,), {"model_arch": kind.model_arch, "set_vocab": set_vocab})
    with captured(), torch.inference_mode():
        bare(folder, gguf.LlamaFileType.ALL_F32, out, hparams=None, eager=True).write()


def convert_adapter(base: Path, adapter: str, out: Path) -> None:
    """Run `convert_lora_to_gguf.py`. Raises RejectedError with its last error."""
    script = str(SOURCE / "convert_lora_to_gguf.py")
    before, sys.argv = sys.argv, [script, "--base", str(base), "--outfile", str(out), "--no-lazy", adapter]
    with captured() as text:
        try:
            runpy.run_path(script, run_name="__main__")
        except BaseException as error:  # it exits as well
            said = [line for line in text.getvalue().splitlines() if "rror" in line or "Unexpected" in line]
            raise RejectedError(f"convert: {deltas.failure(error)} {' '.join(said[-1:])}") from None
        finally:
            sys.argv = before


def compute(pipe: Any, model_file: str, adapter: str | None, words: int) -> None:
    """In a process of its own: load a model and an adapter, and send the logits or the error."""
    import llama_cpp as library

    said: list[str] = []

    @library.llama_log_callback
    def listen(level: int, text: bytes, _: Any) -> None:
        if level >= WARNING and text.strip(b".\n "):
            said.append(text.decode(errors="replace").strip())

    library.llama_log_set(listen, None)
    library.llama_backend_init()
    model = library.llama_model_load_from_file(model_file.encode(), library.llama_model_default_params())
    if not model:
        pipe.send(f"model: {' '.join(said[-3:])}")
        return
    options = library.llama_context_default_params()
    options.n_ctx, options.n_threads, options.n_threads_batch, options.flash_attn_type = 64, 1, 1, 0
    options.type_k = options.type_v = 0
    context = library.llama_init_from_model(model, options)
    if adapter:
        lora = library.llama_adapter_lora_init(model, adapter.encode())
        if not lora:
            pipe.send(f"load: {' '.join(said[-3:])}")
            return
        loras = (library.llama_adapter_lora_p_ctypes * 1)(lora)
        library.llama_set_adapters_lora(context, loras, 1, (ctypes.c_float * 1)(1.0))
    batch = library.llama_batch_init(len(TOKENS), 0, 1)
    batch.n_tokens = len(TOKENS)
    for at, token in enumerate(TOKENS):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, 1
        batch.seq_id[at][0] = 0
    if library.llama_decode(context, batch):
        pipe.send(f"decode: {' '.join(said[-3:])}")
        return
    rows = [
        np.ctypeslib.as_array(library.llama_get_logits_ith(context, at), shape=(words,)) for at in range(len(TOKENS))
    ]
    pipe.send(np.stack(rows))


class Server:
    """The model, converted, and what it computes."""

    def __init__(self, base: str, scratch: Path) -> None:
        self.base, self.scratch = Path(base).resolve(), scratch
        self.config = json.loads((self.base / "config.json").read_text())
        self.weights = deltas.weights(base)
        self.file = scratch / "base.gguf"
        convert_model(self.base, self.file)
        self.bare = self._logits(self.file)

    def _logits(self, model: Path, adapter: Path | None = None) -> Any:
        """What a model computes. Raises RejectedError where it does not, or dies."""
        words = self.config.get("vocab_size") or self.config["text_config"]["vocab_size"]
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe(duplex=False)
        child = fork.Process(target=_quietly, args=(there, str(model), str(adapter) if adapter else None, words))
        child.start()
        there.close()
        try:
            result = here.recv()
        except EOFError:
            result = None
        child.join()
        if isinstance(result, np.ndarray):
            return result
        raise RejectedError(result or f"died with signal {-(child.exitcode or 0)}")

    def merged(self, delta: deltas.Weights) -> Any:
        """What the merged model computes."""
        folder, file = self.scratch / "merged", self.scratch / "merged.gguf"
        folder.mkdir(exist_ok=True)
        weights = deltas.added(self.weights, delta)
        tied = deltas.HEAD in delta and deltas.HEAD not in self.weights
        if tied:
            weights[deltas.HEAD] = self.weights[deltas.embedding(self.weights)] + delta[deltas.HEAD]
        elif set(delta) - set(self.weights):
            raise KeyError(sorted(set(delta) - set(self.weights))[0])
        config = {**self.config, "tie_word_embeddings": False} if tied else self.config
        (folder / "config.json").write_text(json.dumps(config))
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        convert_model(folder, file)
        return self._logits(file)

    def outcome(self, adapter: str, meaning: Path | None) -> tuple[str, str]:
        """What becomes of an adapter, and why."""
        file = self.scratch / "lora.gguf"
        file.unlink(missing_ok=True)
        try:
            convert_adapter(self.base, adapter, file)
            result = self._logits(self.file, file)
        except RejectedError as error:
            return "rejects", str(error)
        if meaning is None:
            return "loads", "what it means is not known"
        try:
            wanted = self.merged(load_file(meaning))
        except Exception as error:
            return "loads", deltas.failure(error)
        effect, off = (float(np.abs(wanted - other).max()) for other in (self.bare, result))
        if off <= NEAR * max(effect, LEAST):
            return "accepts", ""
        return "misloads", f"the merged model's outputs are {effect:.3g} from the model's, and {off:.3g} from these"


def _quietly(*arguments: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    compute(*arguments)


def main(base: str) -> None:
    """Convert the model, and tell."""
    scratch = Path(tempfile.mkdtemp())
    try:
        server = Server(base, scratch)
    except Exception as error:
        for adapter, _ in deltas.jobs():
            deltas.say(adapter, outcome="absent", why=f"no model: {deltas.failure(error)}")
    else:
        for adapter, meaning in deltas.jobs():
            outcome, why = server.outcome(adapter, meaning)
            deltas.say(adapter, outcome=outcome, why=why)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
