"""One function a rule, one file a family. Importing this package declares them all."""

from . import config, files, keys, methods, names, rank

__all__ = ["config", "files", "keys", "methods", "names", "rank"]
