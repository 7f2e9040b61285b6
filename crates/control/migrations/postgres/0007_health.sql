-- When nodes found resources healthy and unhealthy.

CREATE TABLE health_turn (
    resource_id TEXT NOT NULL,
    node_id     TEXT NOT NULL,
    at          BIGINT NOT NULL,   -- by the node's clock
    state       TEXT NOT NULL,     -- healthy | unhealthy
    error       TEXT,
    PRIMARY KEY (resource_id, node_id, at)
);
CREATE INDEX health_turn_at ON health_turn (at);
