"""What shows the product without a key: a stand-in teacher, a base student, traffic."""
