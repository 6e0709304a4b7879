"""Tests of distill/forget/: forgetting end to end, when it is killed, and retention."""
