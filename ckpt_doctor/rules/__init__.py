"""One function a rule, one file a family. Importing this package declares those that every adapter needs.

`methods.py` and `servers.py` are imported where an adapter or a user asks for them (`doctor.judge`).
"""

from . import adalora, config, files, heads, imports, keys, kinds, rank, reading, tensors, values

__all__ = ["adalora", "config", "files", "heads", "imports", "keys", "kinds", "rank", "reading", "tensors", "values"]
