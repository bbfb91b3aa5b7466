"""Load adapters on skeletons of their models, and feed each of their layers.

usage: PYTHON runner.py < JOBS > ANSWERS        the Python of an environment with PEFT; a line of JSON each
A job: `adapter` (a folder), `name` (that it is loaded under), `modules` (path → kind and sizes), `config` (of the
model), `library` (`peft` or `transformers`, which loads it), `transformers` (whether the model is one of that library),
`probes` (the layers to feed), `outputs` (a file for what they give), `beside` and `parts` (tensors that are no factor),
`memory` (bytes of address space), `seconds`.
An answer: `lacks` (what the environment has not), or `versions`, and `error` (`config`: while it was read), or `over`
(why there is no more), or `absent` (layers that are not adapted), `failed` (layers that cannot be fed), `changed`
(tensors beside factors that the model has not, or otherwise).

The model has a module of the right kind and size for each that the adapter needs. Where nothing reads its weights they
cost nothing: zeros that are one number, and a forward that gives zeros, so that a layer gives its delta alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any

ROWS = 2
"""Vectors that a layer is fed."""
IDS = 64
"""Rows of an embedding that are looked up, at the most."""
Spec = dict[str, Any]
"""What a module is: `kind`, sizes `in` and `out`, `kernel`, `bias`, and `real`, a seed for weights that are read."""


def probe(spec: Spec, module: str, numpy: Any) -> Any:
    """What a layer is fed; whoever asks makes the same (RandomState is the same in every release of numpy)."""
    random = numpy.random.RandomState(zlib.crc32(module.encode("utf-8", "surrogatepass")))
    if spec["kind"] == "embedding":
        return random.randint(0, spec["in"], min(spec["in"], IDS))
    if spec["kind"].startswith("conv"):
        return random.standard_normal((1, spec["in"], *spec["kernel"])).astype("float32")
    return random.standard_normal((ROWS, spec["in"])).astype("float32")


def main() -> None:
    """Answer each job."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what the runtime prints, in whatever language it is written, is no answer
        os.environ.update(
            HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="0"
        )
        sys.addaudithook(_refuse_network)
        for line in sys.stdin:
            job = json.loads(line)
            _bound(job["memory"], job["seconds"])
            try:
                told = answer(job)
            except Exception as error:  # of ours, or for want of memory
                told = {"over": f"the load ended without an answer: {_line(error, 300)}"}
            answers.write(json.dumps(told) + "\n")
            answers.flush()


ASKED: list[str] = []
"""What was asked of the network."""


def _refuse_network(event: str, _: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo"):
        ASKED.append(event)
        raise PermissionError("a proof has no network")


def _bound(memory: int, seconds: int) -> None:
    """Let this process have no more than so much address space and time, where the system can say so, whatever becomes
    of who waits for it.
    """
    try:
        import resource
        import signal

        signal.alarm(seconds)
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, AttributeError, ValueError, OSError):
        pass


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Load one adapter."""
    try:
        import numpy
        import peft
        import torch
    except ImportError as error:
        return {"lacks": str(error)}
    found: dict[str, Any] = {"versions": {"peft": peft.__version__}}
    if job["library"] == "transformers":
        import transformers

        found["versions"]["transformers"] = transformers.__version__
    try:
        read_config(job["adapter"])
    except Exception as error:
        return {**found, "error": _line(error, 500), "config": True}
    if job["unlike"]:
        return {**found, "over": job["unlike"]}
    renamed = _renamed(job) if job["library"] == "transformers" else None
    if renamed:
        return {**found, "over": f"transformers renames or joins the weights of {renamed}"}
    try:
        model = skeleton(job)
    except Exception as error:  # of ours, not of the runtime's
        return {**found, "over": f"no skeleton can be made: {_line(error, 300)}"}
    try:
        torch.manual_seed(0)
        named = {} if job["name"] == "default" else {"adapter_name": job["name"]}
        if job["library"] == "transformers":
            model.load_adapter(job["adapter"], **named)
            loaded = model.eval()
        else:
            loaded = peft.PeftModel.from_pretrained(model, job["adapter"], **named).eval()
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch, safetensors: errors of their own
            return {**found, "over": "the load took more memory than it may"}
        if ASKED:
            return {**found, "over": f"the load asks the network: {_line(error, 300)}"}
        return {**found, "error": _line(error, 500), "config": False}
    outputs, found["absent"], found["failed"] = {}, [], {}
    by_name = dict((loaded if loaded is model else loaded.get_base_model()).named_modules())
    for at, module in enumerate(job["probes"]):
        layer = by_name.get(module)
        if layer is None or not _adapts(layer):
            found["absent"].append(module)
            continue
        fed = torch.from_numpy(numpy.ascontiguousarray(probe(job["modules"][module], module, numpy)))
        try:
            with torch.no_grad():
                given = layer(fed)
                given = given - layer.base_layer(fed) if job["apart"] else given - _own_bias(layer, given)
                outputs[str(at)] = given.to(torch.float64).numpy()
        except Exception as error:
            found["failed"][module] = _line(error, 300)
    numpy.savez(job["outputs"], **outputs)
    found["changed"] = [*_changed(job, loaded), *_lost(job, loaded)]
    return found


def read_config(folder: str) -> None:
    """Read the config as the load does, which needs no model. Raises what that raises."""
    from peft import PeftConfig

    PeftConfig.from_pretrained(folder)


def _line(error: Exception, longest: int) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:longest]


def _own_bias(layer: Any, given: Any) -> Any:
    """What a layer of 0.6 and older adds to its delta, as it is the module itself."""
    bias = None if hasattr(layer, "base_layer") else getattr(layer, "bias", None)
    return 0 if bias is None else bias.reshape(1, -1, *[1] * (given.dim() - 2))


def _adapts(layer: Any) -> bool:
    """Whether a module became one of LoRA's or AdaLoRA's."""
    parts = [name for name, _ in layer.named_children()]
    return any(name.startswith("lora_") for name in (*parts, *(n for n, _ in layer.named_parameters(recurse=False))))


def _changed(job: dict[str, Any], loaded: Any) -> Iterator[str]:
    """The tensors beside factors that the model has not, or has otherwise: whole modules, and biases."""
    there = _prefixed(job, loaded.state_dict()) if job["beside"] else {}
    for key, tensor in _tensors(job, job["beside"]):
        parts, end = key.split(".")[:-1], key.rpartition(".")[2]
        whole = ("modules_to_save", job["name"])
        places = [".".join((*parts[:at], *whole, *parts[at:], end)) for at in range(1, len(parts) + 1)]
        if end == "bias":  # of an adapted layer: 0.7 and newer hold it below base_layer
            layer = [part for part in parts if part != "base_layer"]
            places += [".".join((*layer, "base_layer", end)), ".".join((*layer, end))]
        if not any(place in there and _same(there[place], tensor) for place in (key, *places)):
            yield key


def _lost(job: dict[str, Any], loaded: Any) -> Iterator[str]:
    """The tensors that an option adds, or all of a method whose layers are not fed, that are not saved again alike."""
    from peft import get_peft_model_state_dict

    keys = job["parts"] if job["probes"] else None
    if keys == []:
        return
    options: dict[str, Any] = {"adapter_name": job["name"]}
    if "save_embedding_layers" in signature(get_peft_model_state_dict).parameters:
        options["save_embedding_layers"] = False  # else it looks for the base model that the config names
    saved = _prefixed(job, get_peft_model_state_dict(loaded, **options))
    for key, tensor in _tensors(job, keys):
        mine = saved.get(key, saved.get(key.removesuffix(".weight")))  # of magnitudes named as in memory
        if mine is None or not _same(mine, tensor):
            yield key


def _prefixed(job: dict[str, Any], state: Any) -> dict[str, Any]:
    """A state by the names of PEFT's own models."""
    prefix = "base_model.model." if job["library"] == "transformers" else ""
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def _renamed(job: dict[str, Any]) -> str | None:
    """The class or type of model whose names of weights are others in transformers (conversion_mapping.py:
    get_model_conversion_mapping), as its parts' may be: a skeleton has those of the file.
    """
    if find_spec("transformers.conversion_mapping") is None:  # of transformers 4, which is not asked
        return None
    conversions = import_module("transformers.conversion_mapping")
    parts = [job["config"], *(part for part in job["config"].values() if isinstance(part, dict))]
    named = [name for part in parts for name in (*(part.get("architectures") or ()), part.get("model_type"))]
    kinds = [name for name in named if isinstance(name, str)]
    return next((kind for kind in kinds if conversions.get_checkpoint_conversion_mapping(kind) is not None), None)


def _same(mine: Any, other: Any) -> bool:
    return mine.shape == other.shape and bool((mine.float() == other.to(mine.dtype).float()).all())


def _tensors(job: dict[str, Any], keys: list[str] | None) -> Iterator[tuple[str, Any]]:
    """Some tensors of the file, or all; of a `.bin`, which whoever asks found to hold no code, none is run."""
    if keys == []:
        return
    path = os.path.join(job["adapter"], "adapter_model.safetensors")
    if os.path.exists(path):
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            for key in file.keys() if keys is None else keys:
                yield key, file.get_tensor(key)
        return
    import torch

    held = torch.load(os.path.join(job["adapter"], "adapter_model.bin"), map_location="cpu", weights_only=True)
    for key in held if keys is None else keys:
        yield key, held[key]


def skeleton(job: dict[str, Any]) -> Any:
    """The model: a tree of modules, each at its path."""
    import torch

    root = _root(job)
    for path, spec in sorted(job["modules"].items()):
        parent, parts = root, path.split(".")
        for part in parts[:-1]:
            if part not in parent._modules:
                parent.add_module(part, torch.nn.Module())
            parent = parent._modules[part]
        made = _module(spec)
        there = parent._modules.get(parts[-1])
        for name, child in there._modules.items() if there is not None else ():  # a layer that holds some, too
            made.add_module(name, child)
        parent.add_module(parts[-1], made)
    return root


def _root(job: dict[str, Any]) -> Any:
    """A model as PEFT wants one: of transformers, where it is said to be of that library."""
    import torch

    if not job["transformers"]:
        model = torch.nn.Module()
        model.forward = _nothing
        import peft

        if peft.__version__.startswith(("0.2.", "0.3.", "0.4.")):  # these ask every model for one
            vars(model)["config"] = {"model_type": "custom"}
        return model
    from transformers import PretrainedConfig, PreTrainedModel

    plain = (str, int, float, bool)  # what is nested is of parts, and nothing to PEFT
    values = {k: value for k, value in job["config"].items() if k not in UNREAD and isinstance(value, plain)}
    kind = values.pop("model_type", None) or "custom"
    config_class = type("Config", (PretrainedConfig,), {"model_type": kind})
    methods = {
        "config_class": config_class,
        "forward": _nothing,
        "prepare_inputs_for_generation": _nothing,
        "_init_weights": _nothing,
    }
    try:
        config = config_class(**values)
    except Exception:  # a config that this transformers does not take says nothing of the adapter
        config = config_class()
    return type("Skeleton", (PreTrainedModel,), methods)(config)


UNREAD = ("torch_dtype", "dtype", "transformers_version")
"""Keys of a model's config that make transformers do something, and PEFT nothing."""


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _module(spec: Spec) -> Any:
    """A module of one kind and size."""
    import torch

    nn, kind = torch.nn, spec["kind"]
    if kind == "linear":
        made = _bare(nn.Linear, spec, (spec["out"], spec["in"]))
        made.in_features, made.out_features = spec["in"], spec["out"]
    elif kind == "embedding":
        made = _bare(nn.Embedding, spec, (spec["in"], spec["out"]))
        made.num_embeddings, made.embedding_dim = spec["in"], spec["out"]
        made.padding_idx = made.max_norm = None
        made.norm_type, made.scale_grad_by_freq, made.sparse = 2.0, False, False
    elif kind.startswith("conv"):
        with torch.device("meta"):
            made = getattr(nn, f"Conv{kind[4:]}")(spec["in"], spec["out"], tuple(spec["kernel"]), bias=False)
        made.weight = _zeros(made.weight.shape)
        if spec.get("bias"):
            made.bias = nn.Parameter(torch.zeros(spec["out"]), requires_grad=False)
    elif kind == "norm":
        made = nn.LayerNorm(spec["out"])
    else:
        made = nn.Module()
        for name, shape in spec["parameters"].items():
            made.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))
    return made


def _zeros(shape: Any) -> Any:
    """Zeros that are one number, whatever their shape."""
    import torch

    return torch.nn.Parameter(torch.zeros(()).expand(*shape), requires_grad=False)


KINDS: dict[type, type] = {}
"""A kind of torch's → the same with a forward that gives zeros."""


def _bare(kind: type, spec: Spec, shape: tuple[int, int]) -> Any:
    """A module whose weights cost nothing, with a forward that gives zeros; or with real ones, where they are read."""
    import torch

    if kind not in KINDS:
        KINDS[kind] = type(kind.__name__, (kind,), {"forward": _give_zeros, "__module__": kind.__module__})
    of: Any = kind if "real" in spec else KINDS[kind]
    made = of.__new__(of)
    torch.nn.Module.__init__(made)
    if "real" in spec:
        import numpy

        numbers = numpy.random.RandomState(spec["real"]).standard_normal(shape).astype("float32")
        made.weight = torch.nn.Parameter(torch.from_numpy(numbers), requires_grad=False)
    elif spec.get("held"):  # the file has its weights
        made.weight = torch.nn.Parameter(torch.zeros(shape), requires_grad=False)
    else:
        made.weight = _zeros(shape)
    bias = torch.nn.Parameter(torch.zeros(spec["out"]), requires_grad=False) if spec.get("bias") else None
    if kind is not torch.nn.Embedding:
        made.register_parameter("bias", bias)
    return made


def _give_zeros(self: Any, fed: Any, *_: Any, **__: Any) -> Any:
    import torch

    if isinstance(self, torch.nn.Embedding):
        return torch.zeros(*fed.shape, self.embedding_dim)
    return torch.zeros(*fed.shape[:-1], self.out_features)


if __name__ == "__main__":
    main()
