"""The claims of a sentence by rules, a module for each kind.

`reading.py` has them all, `statements.py` what one is.
"""
