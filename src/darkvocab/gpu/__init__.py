"""Can a graphics card do it?

Devices, batches of snowballs on them, and the kernels in torch and Triton that give a core's
numbers bit for bit.
"""
