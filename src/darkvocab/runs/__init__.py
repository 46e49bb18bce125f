"""How does long work land, resume and repeat?

Run folders, their records, engines that do tasks, and the random numbers of each task.
"""
