"""What only the demo profile's small models need."""
