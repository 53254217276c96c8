"""What the image itself says of a claim: its pixels' colours, and a matcher's opinion of its crops."""
