-- Several control planes on one database, and what of their memory they share.
--
-- From here on a migration only adds: tables, columns with a default, indexes. A program that is running goes on with a
-- schema newer than its own. Where a migration must take something away, it first waits for a version that no longer
-- needs it, and then raises oldest_program.

-- The number of the newest migration that a program must know to work with this schema.
ALTER TABLE org ADD COLUMN oldest_program BIGINT NOT NULL DEFAULT 0;

-- What each revision touched, so that others bring their catalogue forward without reading everything.
CREATE TABLE entity_log (
    rev  BIGINT NOT NULL,
    n    BIGINT NOT NULL,
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    at   BIGINT NOT NULL,
    PRIMARY KEY (rev, n)
);
CREATE INDEX entity_log_at ON entity_log (at);
CREATE INDEX vnm_address_rev ON vnm_address (rev);

-- Keys that all control planes of this database share, each sealed under a key that is not in the database.
CREATE TABLE secret (
    name       TEXT PRIMARY KEY,      -- ca | lease-key:<created>
    sealed     TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Failed sign-ins in a row by the hash of a name, those of names of nothing too.
CREATE TABLE lockout (
    name     TEXT PRIMARY KEY,
    failures BIGINT NOT NULL,
    last_at  BIGINT NOT NULL
);

-- Who does what only one does at a time, and until when.
CREATE TABLE duty (
    name     TEXT PRIMARY KEY,
    holder   TEXT NOT NULL,
    until_at BIGINT NOT NULL
);

-- What nodes said to the control plane that they are connected to: that they are there, and how resources are.
CREATE TABLE board (
    id BIGINT PRIMARY KEY,
    n  BIGINT NOT NULL                -- dense: goes up by one with each entry that is put
);
INSERT INTO board (id, n) VALUES (1, 0);

CREATE TABLE board_entry (
    node_id TEXT NOT NULL,
    topic   TEXT NOT NULL,            -- presence | a resource's id
    n       BIGINT NOT NULL,
    replica TEXT NOT NULL,
    body    TEXT NOT NULL,            -- JSON
    at      BIGINT NOT NULL,
    PRIMARY KEY (node_id, topic)
);
CREATE INDEX board_entry_n ON board_entry (n);
