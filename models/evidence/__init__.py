"""Evidence: which entries of the layers are kept (`filter.py`), and which of them support a sentence (`support.py`)."""
