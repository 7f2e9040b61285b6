-- Relays, peering groups, and which nodes may dial a resource.

ALTER TABLE node ADD COLUMN peering TEXT NOT NULL DEFAULT '';  -- its peering group; empty: the one without a name
ALTER TABLE node ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
ALTER TABLE resource ADD COLUMN egress TEXT;                   -- a filter over nodes; NULL: any gateway, any relay
