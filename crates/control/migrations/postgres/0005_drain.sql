-- Nodes that an administrator has taken out of service.

ALTER TABLE node ADD COLUMN drain_ends_at BIGINT;  -- set: it takes no new streams, and what runs is cut at this instant
