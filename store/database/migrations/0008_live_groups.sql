-- Which live comparisons belong together: those of one key count as one. The rules of 0001 hold.

-- The trace of the first comparison of the group; NULL: alone, or of before this migration.
ALTER TABLE comparisons ADD COLUMN group_key UUID;
