"""Predicted costs: drawn kernels, features, and the model that learns times from records."""
