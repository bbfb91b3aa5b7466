"""Read by the processes that vLLM starts to look at a model's class: they have the same stand-ins."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from stand_ins import stand_in_for

stand_in_for("xgrammar", "torchvision")
