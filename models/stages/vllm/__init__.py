"""Stages whose model runs in vLLM's offline engine, in the worker's own process."""
