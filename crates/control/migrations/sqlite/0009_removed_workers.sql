-- Workers that were removed while their certificates go on: clients are told of them, and speak to none of them.

ALTER TABLE cluster ADD COLUMN removed TEXT NOT NULL DEFAULT '[]';  -- JSON: node and until (ms since 1970), oldest first
