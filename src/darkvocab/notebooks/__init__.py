"""Do the notebooks' figures hold?

Each published figure beside ours.
"""
