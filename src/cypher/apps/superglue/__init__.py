"""SuperGLUE: ten tasks read, learnt with one backbone, scored, compared and packed for the leaderboard.

Wang et al. 2019, arXiv 1905.00537.
"""
