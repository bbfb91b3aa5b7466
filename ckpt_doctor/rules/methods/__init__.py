"""Rules about PEFT's methods that are not LoRA's: which release has which, their config values, and their rows.

What is known of a method is in its record in `facts/methods/`; here is what holds for every method. Imported only
where an adapter is none of LoRA's. Importing the rules declares them.
"""

from . import releases, values, layers, tensors  # noqa: F401, I001 - in this order
