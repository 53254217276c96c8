"""`strata models prove`: every stage of a profile on pictures whose truth is known, and what must come out."""
