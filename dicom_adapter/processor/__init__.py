"""Job processors: the public contract, how they are found, and what calls them when."""
