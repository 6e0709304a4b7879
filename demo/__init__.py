"""What shows the product without a key or a download: a stand-in teacher, a base student, traffic."""
