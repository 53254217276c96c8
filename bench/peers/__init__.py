"""Strata beside what a user would take instead: the same images, the same stage of fixed cost, one run."""
