"""The stages of the group `features`: a value or a vector for each image, see `strata.core.layers.features`."""
