-- Tokens that the teacher did not count, as in most streams, are estimated. The rules of 0001 hold.

ALTER TABLE traces ADD COLUMN tokens_estimated BOOLEAN DEFAULT false;  -- one of input and output is

-- Over `SELECT *`, and so made again.
CREATE OR REPLACE VIEW chats AS
SELECT * FROM traces WHERE operation_name = 'chat' AND content <> 'none';

CREATE OR REPLACE VIEW teacher_traces AS
SELECT * FROM chats
WHERE served_by = 'teacher' AND route = 'teacher' AND outcome = 'complete' AND status_code = 200;
