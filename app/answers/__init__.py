"""How answers are sent: compressed, only if they have changed, in part, and without their body."""
