"""Experiments that run offline on real data."""
