"""One function a rule, one file a family. Importing this package declares them all."""

from . import config, files, keys, methods, rank, reading, tensors

__all__ = ["config", "files", "keys", "methods", "rank", "reading", "tensors"]
