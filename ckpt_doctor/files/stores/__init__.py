"""Stores and servers that adapters lie in. No more of an answer is read than was asked for, whatever is sent."""
