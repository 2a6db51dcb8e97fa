"""Schedule one neural-network inference over several unlike compute devices."""
