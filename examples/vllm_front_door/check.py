"""What the front door does with adapters that PEFT saved: asked as vLLM asks it, and loaded as vLLM loads.

usage: python check.py FIXTURES        With the Python of vLLM, where the plug-in is installed; no GPU is needed.

Without `vllm.lora.peft_helper`, as where something stands in for vLLM, what is given is not loaded, and that is said.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

MODEL = "owner/model"


def folder_of(adapters: Path, fixture: Path, name: str, **config: object) -> Path:
    """A copy of a fixture, under another name and for another model."""
    folder = adapters / name
    shutil.copytree(fixture, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": MODEL, **config}))
    return folder


def loads(path: str) -> str:
    """Why vLLM does not take the config of an adapter, as it looks at it before it loads; "" where it does."""
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    try:
        PEFTHelper.from_local_dir(path, 4096).validate_legal(LoRAConfig(max_lora_rank=16))
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Check, and tell; fails where something came out otherwise."""
    fixtures = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        adapters = Path(name).resolve() / "adapters"
        sound = folder_of(adapters, fixtures / "lora-plain-0.21.2", "team/sound")
        broken = folder_of(adapters, fixtures / "adalora-rank0-0.17.1", "broken")
        folder_of(adapters, fixtures / "lora-plain-0.21.2", "elsewhere", base_model_name_or_path="owner/other")
        folder_of(adapters, fixtures / "lora-plain-0.21.2", "torn")
        (adapters / "torn/adapter_model.safetensors").write_bytes(b"\0" * 64)
        shutil.copytree(sound, Path(name) / "outside")
        os.environ |= {
            "FRONT_DOOR_ADAPTERS": str(adapters), "FRONT_DOOR_MAX_RANK": "16",
            "CKPT_DOCTOR_CACHE": str(adapters.parent / "cache"),
        }  # fmt: skip
        from vllm.lora.resolver import LoRAResolverRegistry
        from vllm.plugins import load_general_plugins

        load_general_plugins()
        door = LoRAResolverRegistry.get_resolver("ckpt-doctor")

        def given(lora: str, model: str = MODEL) -> str:
            request = asyncio.run(door.resolve_lora(model, lora))
            if request is None:
                return ""
            assert (request.lora_name, request.lora_int_id > 0) == (lora, True)
            return request.lora_path

        assert given("team/sound") == str(sound)
        copy = given("broken")
        assert Path(copy).is_relative_to(Path(name).resolve() / "cache"), copy
        assert json.loads((Path(copy) / "adapter_config.json").read_text())["peft_type"] == "LORA"
        assert given("broken") == copy
        for none in ("elsewhere", "torn", "team", "nobody", "../outside", str(Path(name) / "outside"), ".", "a\0b"):
            assert given(none) == "", none
        print("as it is: team/sound; repaired: broken; not given: another model's, a torn one, names that lead out")
        if importlib.util.find_spec("vllm.lora.peft_helper") is None:
            print("not loaded: this is no vLLM")
            return
        assert loads(str(broken)), "vLLM takes what was to be repaired"
        assert not loads(copy), loads(copy)
        assert not loads(str(sound)), loads(str(sound))
        import vllm

        print(f"vLLM {vllm.__version__} takes both, and of the broken one before says: {loads(str(broken))}")


if __name__ == "__main__":
    main()
