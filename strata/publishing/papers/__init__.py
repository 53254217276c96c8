"""The papers of a data set: the card (`cards.py`) and the Croissant metadata (`croissant.py`), from the same facts."""
