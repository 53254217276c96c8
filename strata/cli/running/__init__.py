"""`strata run`: `command.py` is the command, `watching.py` the process that starts it again when an image ends it."""
