"""Write docs/servers.md, the table by architecture, from the tables of the servers: python scripts/server_page.py."""

from __future__ import annotations

import json
import os
from typing import Any

from ckpt_doctor.adapter import Base
from ckpt_doctor.facts.servers import SERVERS, Server
from ckpt_doctor.facts.servers.architectures import line
from ckpt_doctor.facts.servers.loads import vllm_model
from ckpt_doctor.facts.servers.loads.llama_cpp import CONV1D, PASSES, REVIEWED
from ckpt_doctor.facts.servers.loads.load import Fate, Load
from ckpt_doctor.facts.servers.loads.sglang import RENAMED, model_of
from ckpt_doctor.facts.servers.loads.vllm_model import REORDERED, UNREVIEWED, falls_back
from ckpt_doctor.facts.servers.record import TAKES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "ckpt_doctor", "facts", "servers")
HEAD = """# Servers, by the class of the model

Which class a server builds for a model decides what an adapter does there. The class is the first of `architectures` in
the model's `config.json`; name the model with `--base`. **Bold** was run, the rest was read in the server's source;
*unknown* is what nobody looked at. `scripts/server_page.py` makes this page from the tables that scans read, and
`scripts/server_tables.py` makes those from a server's source.

- **vLLM 0.33.0**: what has LoRA beside the projections of the language model; "–" is no LoRA at all. Experts one by one
  want all of their parts; as parameters they are rejected unless the server is started with
  `--enable-mixed-moe-lora-format`. Towers are dropped without a word, unless `--enable-tower-connector-lora` helps.
- **SGLang 0.5.23**, started with all modules: the modules of its pool. What an adapter does can hang on who was there
  before: the slot of an adapter that was evicted keeps its LoRA on embed_tokens for one that has LoRA on lm_head alone,
  and the other way (`mem_pool.py: load_lora_weight_to_buffer`). Where more slots (`--max-loras-per-batch`) than adapters
  and one for the model are there, none is evicted; unloading clears a slot. It is no verdict: a scan of several adapters
  says so beside the options.
- **llama.cpp 0.3.36**: "–" does not convert; what its graph multiplies without LoRA.

| class | vLLM | SGLang | llama.cpp |
|---|---|---|---|
"""
OLDER = """
## vLLM, by release

`--for vllm` is the newest that was reviewed, `--for vllm==0.11.0` an older one; of a release that is not here every
verdict is *unknown*. All older ones were read, not run.

| what | {releases} |
|---|{rules}|
{ways}

0.11.0 and 0.8.5 scale by the config's `r` and `lora_alpha` alone: rank_pattern and alpha_pattern are misloaded, rsLoRA
is read, and so are pissa, olora, corda and loftq misloaded, which the newest rejects.

Classes that differ, of those above that an older one has ("no entry": what it falls back to was not looked at):

| class | {releases} |
|---|{rules}|
"""
SAYS = {
    "heads": "a classification head saved whole", "base copies": "a copy of the embedding beside a LoRA on it",
    "experts": "LoRA on experts", "language names": "a language model's names within a larger model",
    "bare names": "names without PEFT's prefix, renamed", "one vocabulary": "an embedding's tokens held against the model's",
}  # fmt: skip
"""What releases have or have not (`Server.way`), of that which people ask for."""


BACKEND = "as transformers names it; embed_tokens"


def _names(table: str) -> list[str]:
    with open(os.path.join(FOLDER, f"{table}.json"), encoding="utf-8") as file:
        return [name for name in json.load(file) if name[:1] != ":" and name not in ("version", "names")]


def vllm(name: str, server: Server = SERVERS[0]) -> str:
    """What vLLM's class has in a release."""
    entry, way = line(server.table, name), server.way or frozenset()
    if entry is None and server is not SERVERS[0]:
        return "no entry"
    if (entry is None or entry.get("gone")) and line("transformers", name) is not None:
        return BACKEND if "backend" in way and falls_back(name) else "*unknown*"
    if entry is not None and entry.get("lora") is False:
        return "–"
    if entry is not None and "transformers" in entry and "backend" in way:
        return BACKEND
    if entry is None or not entry.get("modules") or name in UNREVIEWED or "?" in entry.get("renames", {}):
        return "*unknown*"
    if server is not SERVERS[0] and not entry.get("towers"):
        config = {"architectures": [name]}
        if isinstance(vllm_model.model_of(Load({}, {}, Base({}, config)), server), Fate):
            return "*unknown*"
    inner = entry.get("inner_embeddings", ()) if "inner embeddings" in way else ()
    parts = sorted({*entry.get("embeddings", ()), *inner})
    experts = entry.get("experts") if "experts" in way else None
    parts += ["experts as parameters"] if experts == "3d" else ["experts one by one"] if experts else []
    parts += ["towers by an option"] if entry.get("tower_lora") else []
    wrong = ", ".join(REORDERED.get(name, ()))
    absorbed = (
        "kv_b_proj" if any("absorbed" in kind for part in entry["modules"].values() for kind in part.values()) else ""
    )
    if absorbed and "shared modules" not in way:
        return "*unknown* in the attention; " + ("; ".join(parts) or "projections only")
    silent = ", ".join(part for part in (wrong, absorbed) if part)
    without = ", no experts" if entry.get("experts") and not experts else ""
    return ("; ".join(parts) or "projections only") + without + (f"; silently wrong: {silent}" if silent else "")


def sglang(name: str) -> str:
    """What SGLang's pool has for the class."""
    if line("sglang", RENAMED.get(name, name)) is None:
        return "o_proj, down_proj (as transformers has it)" if line("transformers", name) else "*unknown*"
    model = model_of(Load({}, {}, Base({}, {"architectures": [name], "tie_word_embeddings": False})))
    return "*unknown*" if isinstance(model, Fate) else ", ".join(sorted(model.targets))


def llama_cpp(name: str) -> str:
    """What llama.cpp makes of the class."""
    entry = line("llama_cpp", name)
    if entry is None:
        return "–"
    steps = set(entry.get("steps", ()))
    if "Mistral3Model" in steps:
        return "rejects every adapter"
    if steps & set(CONV1D):
        return "rejects, or silently wrong"
    if "BitnetModel" in steps:
        return "rejects projections"
    if not (set(entry.get("does", ())) <= PASSES or steps & REVIEWED) or "MmprojModel" in steps:
        return "*unknown*"
    graph = line("llama_cpp", f":{entry.get('graph')}") or {}
    unheard = ", ".join(graph.get("no_lora", ())).lower()
    return f"without LoRA: {unheard}" if unheard else "converts"


def page() -> str:
    """The page."""
    with open(os.path.join(FOLDER, "run.json"), encoding="utf-8") as file:
        run: dict[str, Any] = json.load(file)
    tables = {"vllm": set(_names("vllm")), "sglang": set(_names("sglang")), "llama_cpp": set(_names("llama_cpp"))}
    counted = {name: sum(name in names for names in tables.values()) for name in set().union(*tables.values())}
    wanted = {name for name, count in counted.items() if count > 1} | set().union(*run.values())
    rows = []
    for name in sorted(wanted, key=lambda name: (name.lower(), name)):
        cells = []
        for table, cell in (("vllm", vllm), ("sglang", sglang), ("llama_cpp", llama_cpp)):
            text = cell(name)
            cells.append(f"**{text}**" if name in run[table] and text != "*unknown*" else text)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return HEAD + "\n".join(rows) + "\n" + _older(sorted(wanted, key=lambda name: (name.lower(), name)))


def _has(server: Server, what: str) -> str:
    """Whether a release has one of `SAYS`; of a head not known where it takes some, and what classifies is unknown."""
    if what in (server.way or ()):
        return "yes"
    return "*unknown*" if what == "heads" and server.saved_modules.get("score") == TAKES else "no"


def _older(names: list[str]) -> str:
    """What the older releases of vLLM do otherwise, in brief."""
    releases = [server for server in SERVERS if server.name == "vllm"]
    ways = [
        f"| {words} | " + " | ".join(_has(server, what) for server in releases) + " |" for what, words in SAYS.items()
    ]
    head = OLDER.format(
        releases=" | ".join(server.id.partition("==")[2] for server in releases), rules="|".join("---" for _ in releases),
        ways="\n".join(ways),
    )  # fmt: skip
    rows = []
    for name in names:
        cells = [vllm(name, server) for server in releases]
        if len(set(cells) - {"no entry"}) > 1:
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    with open(os.path.join(ROOT, "docs", "servers.md"), "w", encoding="utf-8") as out:
        out.write(page())
