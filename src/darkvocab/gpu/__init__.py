"""Can a graphics card do it?

Devices, batches of snowballs on them, and their kernels in Triton, which give a core's numbers bit for bit.
"""
