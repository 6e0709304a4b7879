"""Everything that speaks HTTP to others: teachers, students, the control plane."""
