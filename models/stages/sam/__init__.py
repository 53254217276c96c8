"""Parts of SAM and SAM 2 that are computed in another order than in transformers, with the same results."""
