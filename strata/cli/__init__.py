"""The command line: the commands, how they print, and the exit codes. It may import every other room.

Its modules import only typer and the standard library at their top, so that `--help` is fast. Read `main.py` first,
then `jobs.py`.
"""
