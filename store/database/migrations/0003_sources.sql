-- Traces that did not come through the proxy: whose log they are from, and when they were imported.
-- The rules of 0001 hold.

ALTER TABLE traces ADD COLUMN source VARCHAR DEFAULT 'proxy';
ALTER TABLE traces ADD COLUMN imported_at DOUBLE;  -- NULL: came as it happened

-- Over `SELECT *`, and so made again.
CREATE OR REPLACE VIEW teacher_traces AS
SELECT * FROM traces
WHERE served_by = 'teacher' AND route = 'teacher' AND outcome = 'complete' AND status_code = 200;
