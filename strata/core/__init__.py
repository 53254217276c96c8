"""Records, profiles, schemas and settings: what every other part of Strata uses."""
