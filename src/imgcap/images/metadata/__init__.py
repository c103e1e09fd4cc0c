"""Descriptions inside image files and in XMP sidecars."""
