-- Proxy clusters, the key pairs with which their workers enrol, and what is bound to them.
--
-- An older program keeps running on this schema until the first cluster is made; that raises oldest_program, because to it
-- a worker would be a node of no kind.

CREATE TABLE cluster (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    name_key   TEXT NOT NULL UNIQUE,
    advertise  TEXT NOT NULL,         -- host:port that clients dial
    carrier    TEXT NOT NULL,         -- direct | websocket
    authority  TEXT,                  -- PEM; of the outer certificate of carrier websocket, NULL: what clients trust
    tags       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    rev        BIGINT NOT NULL
);

CREATE TABLE cluster_key (
    id           TEXT PRIMARY KEY,    -- the access key
    cluster_id   TEXT NOT NULL REFERENCES cluster (id) ON DELETE CASCADE,
    hash         TEXT NOT NULL,       -- of the secret key: SHA-256 in hex; it is shown once
    created_at   BIGINT NOT NULL,
    rotated_at   BIGINT,
    last_used_at BIGINT
);
CREATE INDEX cluster_key_cluster ON cluster_key (cluster_id);

ALTER TABLE node ADD COLUMN cluster_id TEXT;      -- of a worker
ALTER TABLE node ADD COLUMN access_key TEXT;      -- of a worker: what it enrolled with
ALTER TABLE resource ADD COLUMN cluster_id TEXT;  -- set: it is reached over this cluster only
