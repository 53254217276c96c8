"""Clients that others' generators make of the OpenAPI document, tried against a running service."""
