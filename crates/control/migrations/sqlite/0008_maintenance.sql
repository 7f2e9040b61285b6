-- Maintenance windows, and drains that wait for one.
--
-- An older program keeps running on this schema: it shows neither, begins no drain that waits, and leaves both as they are.

CREATE TABLE maintenance_window (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    name_key         TEXT NOT NULL UNIQUE,
    schedule         TEXT NOT NULL,     -- when it opens: a cron expression, UTC
    duration         BIGINT NOT NULL,   -- how long it stays open, in seconds
    require_idleness BOOLEAN NOT NULL,
    nodes            TEXT,              -- a filter over nodes; NULL: it is for all
    created_at       BIGINT NOT NULL,
    rev              BIGINT NOT NULL
);

-- set: it is to be drained in a maintenance window, and what runs then has so many seconds
ALTER TABLE node ADD COLUMN planned_drain BIGINT;
