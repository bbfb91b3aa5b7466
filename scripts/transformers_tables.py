"""transformers: which modules its classes have, under which names, and what it renames as it loads."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import Any

from module_trees import Class, Instance, Items, Leaf, Registered, Source, TooLarge, Values
from module_values import Attributes
from server_tables import kind_of, made_by

GROUPS = (
    "MODEL_MAPPING_NAMES", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
)  # fmt: skip
"""The tasks whose classes are served or adapted."""
ALIASES = "_MODEL_TO_CONVERSION_PATTERN"
"""Model type → the one that it is renamed as."""


def transformers(root: str) -> dict[str, Any]:
    """The classes of those tasks, a line `:model_type` with the classes of a bare model and of one that generates, and what is renamed."""
    source = Source(root, kind_of, made_by)
    auto = source.module("transformers.models.auto.modeling_auto")
    if auto is None:
        raise SystemExit("transformers: no modeling_auto.py")
    bare: dict[str, str] = {}
    causal: dict[str, str] = {}
    classes: dict[str, list[str]] = {}
    for group in GROUPS:
        for kind, name in _pairs(auto.names[group]):
            classes.setdefault(name, []).append(kind)
            if group == GROUPS[0]:
                bare[kind] = name
            elif group == GROUPS[1]:
                causal[kind] = name
    table: dict[str, Any] = {}
    for name, kinds in classes.items():
        cls = next(filter(None, (_find(source, kind, name) for kind in kinds)), None)
        if cls is not None:
            try:
                table[name] = _class(source, cls, classes)
            except TooLarge:
                continue
    renames, ties = conversions(source), tied(source)
    module = source.module("transformers.conversion_mapping")
    like = module.literal(ALIASES) if module else {}
    for kind in sorted({*bare, *causal, *renames}):
        entry = {
            "model": bare.get(kind), "causal": causal.get(kind), "renames": renames.get(kind), "like": like.get(kind),
            "tied": ties.get(kind),
        }  # fmt: skip
        table[f":{kind}"] = {key: value for key, value in entry.items() if value is not None and value != []}
    return table


def tied(source: Source) -> dict[str, bool]:
    """Model type → whether its head is tied to its embedding where a config does not say."""
    auto = source.module("transformers.models.auto.auto_mappings")
    found: dict[str, bool] = {}
    for kind, name in _pairs(auto.names["CONFIG_MAPPING_NAMES"]) if auto else ():
        cls = _find(source, kind, name, "configuration")
        value = Attributes(source, cls).value("tie_word_embeddings") if cls else None
        if isinstance(value, bool):
            found[kind] = value
    return found


def _pairs(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The pairs of an OrderedDict of model types and names of classes."""
    for pair in ast.walk(node):
        if isinstance(pair, ast.Tuple) and len(pair.elts) == 2 and isinstance(pair.elts[0], ast.Constant):
            names = pair.elts[1]
            for name in names.elts if isinstance(names, ast.Tuple) else [names]:
                if isinstance(name, ast.Constant):
                    yield str(pair.elts[0].value), str(name.value)


def _find(source: Source, kind: str, name: str, file: str = "modeling") -> Class | None:
    folder = kind.replace("-", "_")
    parts = folder.split("_")
    for length in range(len(parts), 0, -1):
        plain = "_".join(parts[:length])
        cls = source.find(f"transformers.models.{plain}.{file}_{plain}", name)
        if cls is not None:
            return cls
    return None


def _class(source: Source, cls: Class, known: Collection[str]) -> dict[str, Any]:
    instance, facts = source.instance(cls), Attributes(source, cls)
    tree: dict[str, dict[str, set[str]]] = {}
    for path, kind in _paths(instance, known):
        parent, _, leaf = path.rpartition(".")
        tree.setdefault(parent, {}).setdefault(leaf, set()).add(kind)
    plain = {parent: {leaf: "|".join(sorted(kinds)) for leaf, kinds in found.items()} for parent, found in tree.items()}
    entry = {"prefix": facts.value("base_model_prefix"), "modules": plain}
    if facts.value("_supports_attention_backend") is True:  # PreTrainedModel.is_backend_compatible
        entry["backend"] = True
    tied = facts.value("_tied_weights_keys")
    if tied:
        entry["tied"] = sorted(tied)
    return {key: value for key, value in entry.items() if value}


def _paths(instance: Instance, known: Collection[str], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The modules of a class; what is a class of the table itself is named only."""

    def below(values: Values, path: str) -> Iterator[tuple[str, str]]:
        for value in values:
            if isinstance(value, Leaf):
                if value.kind != "parameter" or path.rpartition(".")[2] != "weight":
                    yield path, value.kind
                else:
                    yield path.rpartition(".")[0], "parameter weight"
            elif isinstance(value, Registered):
                yield path, "@" + ",".join(value.architectures)
            elif isinstance(value, Instance):
                if value.cls.name in known:
                    yield path, f"@{value.cls.name}"
                elif depth < 12:
                    yield from _paths(value, known, f"{path}.", depth + 1)
            elif isinstance(value, Items):
                yield from below(value.values, f"{path}.#")

    for name, values in instance.attributes.items():
        yield from below(values, f"{prefix}{name}")


def conversions(source: Source) -> dict[str, list[list[str]]]:
    """Model type or class → what is renamed as it is loaded: from (a regex), to; and experts that are put together."""
    module = source.module("transformers.conversion_mapping")
    if module is None:
        raise SystemExit("transformers: no conversion_mapping.py")
    function = next(
        node for node in module.tree.body if getattr(node, "name", "") == "_build_checkpoint_conversion_mapping"
    )
    found: dict[str, list[list[str]]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, (ast.List, ast.BinOp)):
                    found.setdefault(str(key.value), _steps(value, found))
        if not isinstance(node, (ast.Assign, ast.AugAssign)):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            key = str(target.slice.value)
            before = found.get(key, []) if isinstance(node, ast.AugAssign) else []
            found[key] = [*before, *_steps(node.value, found)]
    for name, like in module.literal(ALIASES).items():
        found.setdefault(name, found.get(like, []))
    return found


def _steps(node: ast.expr, found: dict[str, list[list[str]]]) -> list[list[str]]:
    """The steps of a list of WeightRenaming, PrefixChange and WeightConverter."""
    steps: list[list[str]] = []
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant):
            steps += found.get(str(part.slice.value), []) if ast.unparse(part.value) == "mapping" else []
        if not isinstance(part, ast.Call):
            continue
        given = [ast.literal_eval(arg) if isinstance(arg, ast.Constant) else None for arg in part.args]
        named = {word.arg: word.value for word in part.keywords}
        name = ast.unparse(part.func)
        if name == "WeightRenaming":
            patterns = [named.get(key) for key in ("source_patterns", "target_patterns")]
            given += [pattern.value for pattern in patterns if isinstance(pattern, ast.Constant)]
            steps.append(["rename", *map(str, given)])
        elif name == "PrefixChange":
            steps.append(["prefix", *(f"{key}={ast.literal_eval(value)}" for key, value in named.items() if key)])
        elif name == "WeightConverter" and {"source_patterns", "target_patterns"} <= named.keys():
            old, new = ast.literal_eval(named["source_patterns"]), ast.literal_eval(named["target_patterns"])
            whole = [old] if isinstance(old, str) else list(old)
            steps.append(["join", new if isinstance(new, str) else ",".join(new), *whole])
    return steps
