"""Captioned data sets, and the prepared folder."""
