"""Words of an English sentence: `tokens.py` finds them, `tags.py` their parts of speech, by `lists.py` and WordNet."""
