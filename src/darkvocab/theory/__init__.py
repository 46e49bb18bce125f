"""Closed forms: what the census of a snowball is expected to be."""
