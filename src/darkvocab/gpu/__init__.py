"""Can a graphics card do it?

Devices, batches of snowballs on them, and their kernels in torch (which say what each does) and Triton, which give a
core's numbers bit for bit.
"""
