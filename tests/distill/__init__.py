"""Tests of distill/: collecting, commands, the status API, the control plane, and its packages."""
