"""Pictures of instances, for people to see what they choose."""
