"""The least time that a profile's models need for one image on a card: a roofline, from the models' own configs."""
