"""Random faults against the real `understudy serve`, with clients that must not notice them.

    python -m tests.campaign --seed 1 --faults 1000 --minutes 15

`run.py` is an episode from its start to its checks; `faults/` has a function a fault.
"""
