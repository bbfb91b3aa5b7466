"""One module a file format: the header of a file → its tensors, without torch."""
