"""Captions against references: metrics, intervals, comparison."""
