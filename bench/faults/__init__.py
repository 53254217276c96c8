"""`make faults`: jobs of 2,000 images while a seeded schedule injects faults; see `bench.faults.run`."""
