"""How does it happen while a model learns?

A small GPT-2 trained from a snowball, recorded step by step, and what became of its black holes.
"""
