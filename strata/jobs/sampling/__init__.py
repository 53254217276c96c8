"""Jobs of a random sample: `population.py` draws the images, `draws.py` does so for the jobs of the service.

`copied.py` finds which chosen rows need not be computed.
"""

from __future__ import annotations

from strata.jobs.sampling.copied import MOST_COMPARED, copied_rows, ended_rows
from strata.jobs.sampling.draws import Draws
from strata.jobs.sampling.population import Population, draw, sample_of

__all__ = ["MOST_COMPARED", "Draws", "Population", "copied_rows", "draw", "ended_rows", "sample_of"]
