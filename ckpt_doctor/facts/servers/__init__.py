"""One record a server: what it does with an adapter, field by field."""

from .llama_cpp import LLAMA_CPP
from .lorax import LORAX
from .ollama import OLLAMA
from .record import ANY, FIELDS, MISLOADS, NOTHING, REJECTS, TAKES, UNKNOWN, Outcome, Scale, Server, Table, outcome
from .sglang import SGLANG
from .tensorrt_llm import TENSORRT_LLM
from .tgi import TGI
from .transformers import TRANSFORMERS
from .vllm import VLLM

SERVERS = (VLLM, SGLANG, LLAMA_CPP, TRANSFORMERS, TGI, LORAX, TENSORRT_LLM, OLLAMA)

__all__ = [
    "ANY", "FIELDS", "MISLOADS", "NOTHING", "REJECTS", "SERVERS", "TAKES", "UNKNOWN", "Outcome", "Scale", "Server",
    "Table", "outcome",
]  # fmt: skip
