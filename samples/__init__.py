"""The demo world: composed scenes whose objects, boxes, texts and relations are known."""
