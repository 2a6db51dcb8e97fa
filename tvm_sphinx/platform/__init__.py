"""Devices that a model can be spread over: described in a file, or found on this machine."""

from .device import Device, Link
from .platform import NAMED_PLATFORMS, Platform

__all__ = ["NAMED_PLATFORMS", "Device", "Link", "Platform"]
