-- Resources of several ports and hosts, and in both modes at once.

ALTER TABLE resource ADD COLUMN ports TEXT NOT NULL DEFAULT '[]';  -- JSON list of further ports and ranges
ALTER TABLE resource ADD COLUMN hosts TEXT NOT NULL DEFAULT '[]';  -- JSON list of patterns under a wildcard alias
-- The loopback address of every resource; NULL: assigned at the next start.
ALTER TABLE resource ADD COLUMN loopback_ip TEXT;
ALTER TABLE resource ADD COLUMN loopback_port BIGINT;
UPDATE resource SET loopback_ip = bind_ip, loopback_port = bind_port WHERE bind_mode = 'loopback';

DROP INDEX resource_bind;
CREATE UNIQUE INDEX resource_bind ON resource (bind_ip, bind_port);
CREATE UNIQUE INDEX resource_loopback ON resource (loopback_ip, loopback_port);
