"""Search what is stored, look at it, and make jobs of a selection."""
