-- Which evaluated rows belong together: rows of one number count as one. The rules of 0001 hold.

ALTER TABLE evaluations ADD COLUMN "group" BIGINT;  -- NULL: alone, or of before this migration
