-- Of traces that expired, also which inputs they were: what was learned from does not judge when it
-- comes again. A salted hash, as the others. The rules of 0001 hold.

ALTER TABLE learned ADD COLUMN input_digest VARCHAR;  -- NULL: of before this migration, or forgotten
