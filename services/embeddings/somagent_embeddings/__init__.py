"""Sentence embeddings by a sentence-transformers model on CPU, behind OpenAI's embeddings API."""
