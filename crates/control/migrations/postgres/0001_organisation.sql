-- One database holds one organisation. The text is meant to run on SQLite and PostgreSQL alike: identifiers are TEXT,
-- instants are BIGINT milliseconds since 1970, structured values are JSON in TEXT.

CREATE TABLE org (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    rev        BIGINT NOT NULL,       -- dense: goes up by one with each change of the configuration
    epoch      TEXT NOT NULL,         -- changes when the database was restored from a backup
    settings   TEXT NOT NULL,         -- network settings
    created_at BIGINT NOT NULL
);

-- Who may act ---------------------------------------------------------------------------------------------------

CREATE TABLE account (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,         -- user | service
    email      TEXT NOT NULL UNIQUE,  -- in its one canonical form
    name       TEXT NOT NULL,
    admin      BOOLEAN NOT NULL,
    suspended  BOOLEAN NOT NULL,
    tags       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    rev        BIGINT NOT NULL
);

CREATE TABLE account_credential (
    account_id  TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL,        -- password
    secret      TEXT NOT NULL,        -- PHC string of argon2id
    must_change BOOLEAN NOT NULL,
    changed_at  BIGINT NOT NULL,
    PRIMARY KEY (account_id, kind)
);

CREATE TABLE account_token (
    id           TEXT PRIMARY KEY,
    account_id   TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL UNIQUE, -- SHA-256 in hex; the token itself is shown once
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT
);
CREATE INDEX account_token_account ON account_token (account_id);

CREATE TABLE device (
    id           TEXT PRIMARY KEY,
    account_id   TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    os           TEXT NOT NULL,
    spki_sha256  TEXT NOT NULL,
    agent        TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    last_seen_at BIGINT,
    last_address TEXT,
    revoked_at   BIGINT
);
CREATE INDEX device_account ON device (account_id);
CREATE UNIQUE INDEX device_key ON device (account_id, spki_sha256);

CREATE TABLE login (
    id         TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    device_id  TEXT REFERENCES device (id) ON DELETE CASCADE,  -- NULL: signed in without a device
    token_hash TEXT NOT NULL UNIQUE,  -- SHA-256 in hex
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address    TEXT,
    revoked_at BIGINT
);
CREATE INDEX login_account ON login (account_id);
CREATE INDEX login_device ON login (device_id);

-- What may be reached ---------------------------------------------------------------------------------------------

CREATE TABLE role (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,    -- the name as it is compared
    tags TEXT NOT NULL,
    rev  BIGINT NOT NULL
);

CREATE TABLE access_rule (
    id        TEXT PRIMARY KEY,
    role_id   TEXT NOT NULL REFERENCES role (id) ON DELETE CASCADE,
    resources TEXT,                   -- JSON list of ids: a static rule
    query     TEXT,                   -- filter: a dynamic rule
    rev       BIGINT NOT NULL
);
CREATE INDEX access_rule_role ON access_rule (role_id);

CREATE TABLE role_member (
    role_id    TEXT NOT NULL REFERENCES role (id) ON DELETE CASCADE,
    account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    rev        BIGINT NOT NULL,
    PRIMARY KEY (role_id, account_id)
);
CREATE INDEX role_member_account ON role_member (account_id);

CREATE TABLE resource (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    name_key    TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    host        TEXT NOT NULL,
    port        BIGINT NOT NULL,
    tags        TEXT NOT NULL,
    bind_mode   TEXT NOT NULL,        -- loopback | vnm
    bind_ip     TEXT NOT NULL,
    bind_port   BIGINT NOT NULL,
    dns_name    TEXT UNIQUE,          -- lower case
    allow_local BOOLEAN NOT NULL,
    strict      BOOLEAN NOT NULL,
    created_at  BIGINT NOT NULL,
    rev         BIGINT NOT NULL
);
CREATE UNIQUE INDEX resource_bind ON resource (bind_mode, bind_ip, bind_port);

-- Every address of the virtual network that a resource ever had; it is not given to another one.
CREATE TABLE vnm_address (
    ip          TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    rev         BIGINT NOT NULL,
    PRIMARY KEY (ip, resource_id)
);

CREATE TABLE account_grant (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    resource_id TEXT NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    ends_at     BIGINT,
    reason      TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    rev         BIGINT NOT NULL
);
CREATE INDEX account_grant_account ON account_grant (account_id);

-- Nodes -----------------------------------------------------------------------------------------------------------

CREATE TABLE node (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL,       -- gateway
    name         TEXT NOT NULL,
    name_key     TEXT NOT NULL UNIQUE,
    advertise    TEXT,                -- host:port that clients dial
    spki_sha256  TEXT,                -- of the enrolled key; NULL: waits for its enrolment
    enrolled_at  BIGINT,
    created_at   BIGINT NOT NULL,
    rev          BIGINT NOT NULL
);


CREATE TABLE enrol_token (
    hash       TEXT PRIMARY KEY,      -- SHA-256 in hex
    node_id    TEXT NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX enrol_token_node ON enrol_token (node_id);

-- What happened ---------------------------------------------------------------------------------------------------

-- The outbox of sync: one row for each item of a scope that a revision put or deleted.
CREATE TABLE change_log (
    rev   BIGINT NOT NULL,
    n     BIGINT NOT NULL,
    scope TEXT NOT NULL,
    op    TEXT NOT NULL,              -- put | del
    item  TEXT NOT NULL,              -- the item's key, JSON
    at    BIGINT NOT NULL,
    PRIMARY KEY (rev, n)
);
CREATE INDEX change_log_scope ON change_log (scope, rev);

CREATE TABLE revocation (
    rev     BIGINT NOT NULL,
    n       BIGINT NOT NULL,
    subject TEXT NOT NULL,            -- JSON
    at      BIGINT NOT NULL,
    reason  TEXT NOT NULL,
    PRIMARY KEY (rev, n)
);
CREATE INDEX revocation_at ON revocation (at);

-- Administrative events with the state before and after: the audit of people and the history of each entity.
CREATE TABLE activity (
    seq          BIGINT PRIMARY KEY,  -- order of events, whatever the clock does
    id           TEXT NOT NULL UNIQUE,
    at           BIGINT NOT NULL,
    rev          BIGINT NOT NULL,
    actor_kind   TEXT NOT NULL,       -- account | node | operator | system
    actor_id     TEXT,
    actor_name   TEXT NOT NULL,
    verb         TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject_id   TEXT NOT NULL,
    subject_name TEXT NOT NULL,
    before_state TEXT,                -- JSON
    after_state  TEXT,                -- JSON
    address      TEXT,
    agent        TEXT
);
CREATE INDEX activity_subject ON activity (subject_id, seq);

-- The records of each node as they came: a hash chain.
CREATE TABLE session_record (
    node_id TEXT NOT NULL,
    seq     BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    stream  TEXT,
    record  TEXT NOT NULL,            -- JSON
    PRIMARY KEY (node_id, seq)
);

CREATE TABLE node_chain (
    node_id TEXT PRIMARY KEY,
    seq     BIGINT NOT NULL,
    hash    TEXT NOT NULL
);

-- One row for each session, made from its records. A stream's id is the client's choice and may come twice.
CREATE TABLE session (
    seq            BIGINT PRIMARY KEY, -- order of arrival
    id             TEXT NOT NULL,      -- the stream
    node_id        TEXT NOT NULL,
    start_seq      BIGINT NOT NULL,    -- the record that it began with
    node_name      TEXT NOT NULL,
    account_id     TEXT NOT NULL,
    account_email  TEXT NOT NULL,
    device_id      TEXT NOT NULL,
    device_name    TEXT NOT NULL,
    resource_id    TEXT NOT NULL,
    resource_name  TEXT NOT NULL,
    resource_tags  TEXT NOT NULL,
    granted_by     TEXT NOT NULL,
    client         TEXT NOT NULL,
    target         TEXT NOT NULL,
    dialled        TEXT,
    started_at     BIGINT NOT NULL,
    ended_at       BIGINT,
    bytes_up       BIGINT,
    bytes_down     BIGINT,
    reason         TEXT,
    detail         TEXT,
    UNIQUE (node_id, start_seq)
);
CREATE INDEX session_stream ON session (id);
CREATE INDEX session_account ON session (account_id);
CREATE INDEX session_device ON session (device_id);
