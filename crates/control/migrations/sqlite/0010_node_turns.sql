-- When nodes were connected, and when they were away.

CREATE TABLE node_turn (
    node_id TEXT NOT NULL,
    at      BIGINT NOT NULL,   -- ms since 1970, by the control plane's clock
    state   TEXT NOT NULL,     -- up | away
    PRIMARY KEY (node_id, at)
);
CREATE INDEX node_turn_at ON node_turn (at);
