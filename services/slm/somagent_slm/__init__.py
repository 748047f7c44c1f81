"""A small language model behind an OpenAI-compatible endpoint: llama.cpp in process, Ray Serve in front."""

__version__ = "0.1.0"
