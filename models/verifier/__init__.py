"""The verifier: what each sentence of a description says, and whether the evidence supports it.

Read `verifying.py` first: a text becomes sentences, a sentence claims (`claims/`), each claim is checked against the
record (`checks/`), and what is not supported is cut (`cutting.py`).
"""
