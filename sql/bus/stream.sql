-- A stream's row exists to be locked: it is the one place where writers of a
-- stream meet.  The version is not kept here but read from the log, since a
-- row updated by every append would bloat under a long snapshot.  Only when
-- retention drops the last events of a stream, their version is kept here.

CREATE TABLE meal_planner.stream (
    account         text   NOT NULL,
    stream          text   NOT NULL,
    dropped_version bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account, stream)
);
COMMENT ON TABLE meal_planner.stream IS
'streams by name; a writer locks the row, then reads the last version from the log';
COMMENT ON COLUMN meal_planner.stream.dropped_version IS
'version of the last event that retention has dropped, when the stream had no later one; 0: none';
SELECT pg_extension_config_dump('meal_planner.stream', '');
