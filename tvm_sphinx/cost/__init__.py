"""Costs: what each task takes on each device, and each copy between devices."""
