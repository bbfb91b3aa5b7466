"""Used from a training: the ranks of an AdaLoRA while it is trained. Imported by nothing else of this package."""
