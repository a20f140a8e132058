"""Tests of the layer that speaks to peers."""
