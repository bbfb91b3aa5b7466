"""What is run in the environment of a runtime, as a script of its own: it imports nothing of ckpt-doctor."""
