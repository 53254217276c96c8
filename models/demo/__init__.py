"""Code that only the small models of the demo profile need."""
