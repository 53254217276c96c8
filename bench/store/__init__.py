"""How a store behaves as it grows: up to 100 million images, and in a bucket."""
