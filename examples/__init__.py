"""Runnable examples: each folder is one application, with its own README."""
