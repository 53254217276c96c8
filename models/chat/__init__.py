"""Stages that use an OpenAI-compatible chat server."""
