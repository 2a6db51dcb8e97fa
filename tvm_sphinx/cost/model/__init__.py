"""Predicted costs: kernels and their features, the XGBoost model that learns from records, and its use."""
