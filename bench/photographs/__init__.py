"""How true a profile speaks of the labelled photographs: `python -m bench.photographs [PROFILE]`."""
