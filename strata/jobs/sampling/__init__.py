"""Jobs of a random sample: `population.py` draws the images, `draws.py` does so for the jobs of the service."""

from __future__ import annotations

from strata.jobs.sampling.draws import Draws
from strata.jobs.sampling.population import Population, draw, sample_of

__all__ = ["Draws", "Population", "draw", "sample_of"]
