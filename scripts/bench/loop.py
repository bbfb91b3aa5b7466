"""The least that a scan in Python has to do: walk, open, read, and parse the config and the header of each adapter."""

import json
import os
import struct
import sys

for folder, _, names in os.walk(sys.argv[1]):
    if "adapter_config.json" in names:
        with open(os.path.join(folder, "adapter_config.json"), "rb") as file:
            json.loads(file.read())
        with open(os.path.join(folder, "adapter_model.safetensors"), "rb") as file:
            json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
