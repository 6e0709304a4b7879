"""The base student: a tiny language model made from generated text, so nothing is downloaded."""
