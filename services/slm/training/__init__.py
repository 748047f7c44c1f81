"""Trains the bundled tiny Llama on our own documentation. Not part of the serving image."""
