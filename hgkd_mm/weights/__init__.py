"""Weight files: reading them without running what they contain, and how they fit a network."""
