"""What others would write for the same work. They need none of Strata's packages."""
