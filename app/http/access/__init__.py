"""Ways to the service beside a key in a header: the sessions of the studio, and signed links to images."""
