"""Run folders, their records, engines that do tasks, and the random numbers of each task."""
