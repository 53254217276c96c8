"""The checks of claims against a record's evidence, a module for each kind of claim.

`kinds.py` has the check of each kind, `verdicts.py` what a check says. All checks begin with `naming.py`: which things
of the evidence a noun phrase means.
"""
