-- A stream's row exists to be locked: it is the one place where writers of a
-- stream meet.  The version is not kept here but read from the log, since a
-- row updated by every append would bloat under a long snapshot.

CREATE TABLE meal_planner.stream (
    account text NOT NULL,
    stream  text NOT NULL,
    PRIMARY KEY (account, stream)
);
COMMENT ON TABLE meal_planner.stream IS
'streams by name; a writer locks the row, then reads the last version from the log';
SELECT pg_extension_config_dump('meal_planner.stream', '');
