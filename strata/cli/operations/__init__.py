"""Commands for the people who run a service: webhooks, keys, what it does now."""
