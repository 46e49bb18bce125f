"""Rows compared: how far apart are they, which coincide or touch, and which were never trained?

One measure a file, each known to no other; `dark` puts them together to judge a checkpoint's tokens.
"""
