"""Stages that ask an OpenAI-compatible chat server."""
