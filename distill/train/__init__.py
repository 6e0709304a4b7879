"""Training one LoRA adapter in a subprocess, and starting modules that use MLX.

Imports store, distill.dataset, distill.teacher and distill.run.
"""
