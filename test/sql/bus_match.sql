-- mp_match: one line per rule of the pattern language, and where an invalid pattern is wrong.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

CREATE TABLE pattern_case (n serial, rule text, pattern jsonb, event jsonb, expected boolean);
INSERT INTO pattern_case (rule, pattern, event, expected) VALUES
('literal',                     '{"source": ["a"]}', '{"source": "a"}', true),
('literal, other',              '{"source": ["a"]}', '{"source": "b"}', false),
('literal is whole',            '{"source": ["a"]}', '{"source": "ab"}', false),
('case matters',                '{"source": ["a"]}', '{"source": "A"}', false),
('or within a list',            '{"source": ["a", "b"]}', '{"source": "b"}', true),
('and between fields',          '{"source": ["a"], "region": ["x"]}', '{"source": "a", "region": "y"}', false),
('field missing',               '{"source": ["a"]}', '{"region": "a"}', false),
('nested',                      '{"detail": {"a": {"b": ["c"]}}}', '{"detail": {"a": {"b": "c", "d": 1}}}', true),
('a dot is a character',        '{"detail": {"a.b": [1]}}', '{"detail": {"a": {"b": 1}}}', false),
('number by value',             '{"detail": {"n": [300]}}', '{"detail": {"n": 3.0e2}}', true),
('number is no string',         '{"detail": {"n": [1]}}', '{"detail": {"n": "1"}}', false),
('string is no number',         '{"detail": {"n": ["1"]}}', '{"detail": {"n": 1}}', false),
('minus zero',                  '{"detail": {"n": [0]}}', '{"detail": {"n": -0.0}}', true),
('precision kept',              '{"detail": {"n": [9007199254740993]}}', '{"detail": {"n": 9007199254740992}}', false),
('true',                        '{"detail": {"n": [true]}}', '{"detail": {"n": true}}', true),
('true is no string',           '{"detail": {"n": [true]}}', '{"detail": {"n": "true"}}', false),
('null',                        '{"detail": {"n": [null]}}', '{"detail": {"n": null}}', true),
('null is not missing',         '{"detail": {"n": [null]}}', '{"detail": {}}', false),
('element of an array',         '{"resources": ["r2"]}', '{"resources": ["r1", "r2"]}', true),
('nested arrays are flat',      '{"detail": {"n": [3]}}', '{"detail": {"n": [1, [2, [3]]]}}', true),
('empty array',                 '{"resources": ["r"]}', '{"resources": []}', false),
('same element',                '{"detail": {"i": {"a": [1], "b": [2]}}}', '{"detail": {"i": [{"a": 1, "b": 2}]}}', true),
('not across elements',         '{"detail": {"i": {"a": [1], "b": [2]}}}', '{"detail": {"i": [{"a": 1}, {"b": 2}]}}', false),
('object is no leaf',           '{"detail": {"n": [{"exists": true}]}}', '{"detail": {"n": {"a": 1}}}', false),
('prefix',                      '{"source": [{"prefix": "com."}]}', '{"source": "com.x"}', true),
('prefix is not within',        '{"source": [{"prefix": "com."}]}', '{"source": "x.com."}', false),
('empty prefix',                '{"source": [{"prefix": ""}]}', '{"source": "x"}', true),
('prefix of a number',          '{"detail": {"n": [{"prefix": "1"}]}}', '{"detail": {"n": 12}}', false),
('prefix ignoring case',        '{"source": [{"prefix": {"equals-ignore-case": "COM."}}]}', '{"source": "com.x"}', true),
('suffix',                      '{"source": [{"suffix": ".png"}]}', '{"source": "a.png"}', true),
('suffix, not',                 '{"source": [{"suffix": ".png"}]}', '{"source": "a.png.gz"}', false),
('suffix ignoring case',        '{"source": [{"suffix": {"equals-ignore-case": ".PNG"}}]}', '{"source": "a.png"}', true),
('equals-ignore-case',          '{"source": [{"equals-ignore-case": "straße Ä"}]}', '{"source": "STRAßE ä"}', true),
('sharp s is not ss',           '{"source": [{"equals-ignore-case": "straße"}]}', '{"source": "STRASSE"}', false),
('wildcard',                    '{"source": [{"wildcard": "a*c*e"}]}', '{"source": "abcde"}', true),
('wildcard, nothing between',   '{"source": [{"wildcard": "a*"}]}', '{"source": "a"}', true),
('wildcard, not',               '{"source": [{"wildcard": "a*c"}]}', '{"source": "acb"}', false),
('wildcard, escaped star',      '{"source": [{"wildcard": "a\\*c"}]}', '{"source": "abc"}', false),
('wildcard, star itself',       '{"source": [{"wildcard": "a\\*c"}]}', '{"source": "a*c"}', true),
('numeric =',                   '{"detail": {"n": [{"numeric": ["=", 5]}]}}', '{"detail": {"n": 5.00}}', true),
('numeric <',                   '{"detail": {"n": [{"numeric": ["<", 5]}]}}', '{"detail": {"n": 5}}', false),
('numeric <=',                  '{"detail": {"n": [{"numeric": ["<=", 5]}]}}', '{"detail": {"n": 5}}', true),
('numeric, negative',           '{"detail": {"n": [{"numeric": [">", -2]}]}}', '{"detail": {"n": -1.5}}', true),
('numeric range',               '{"detail": {"n": [{"numeric": [">", 0, "<=", 5]}]}}', '{"detail": {"n": 5}}', true),
('numeric range, low end',      '{"detail": {"n": [{"numeric": [">", 0, "<=", 5]}]}}', '{"detail": {"n": 0}}', false),
('numeric of a string',         '{"detail": {"n": [{"numeric": [">", 0]}]}}', '{"detail": {"n": "1"}}', false),
('exists',                      '{"detail": {"n": [{"exists": true}]}}', '{"detail": {"n": null}}', true),
('exists, not',                 '{"detail": {"n": [{"exists": true}]}}', '{"detail": {"m": 1}}', false),
('exists false',                '{"detail": {"n": [{"exists": false}]}}', '{"detail": {"m": 1}}', true),
('exists false, not',           '{"detail": {"n": [{"exists": false}]}}', '{"detail": {"n": 1}}', false),
('exists false, nothing above', '{"detail": {"a": {"b": [{"exists": false}]}}}', '{"detail": {}}', true),
('exists false or a value',     '{"detail": {"n": [{"exists": false}, 1]}}', '{"detail": {"n": 1}}', true),
('exists false, empty array',   '{"detail": {"n": [{"exists": false}]}}', '{"detail": {"n": []}}', true),
('anything-but',                '{"source": [{"anything-but": "a"}]}', '{"source": "b"}', true),
('anything-but, not',           '{"source": [{"anything-but": "a"}]}', '{"source": "a"}', false),
('anything-but, list',          '{"detail": {"n": [{"anything-but": [1, 2]}]}}', '{"detail": {"n": 2.0}}', false),
('anything-but, other type',    '{"detail": {"n": [{"anything-but": [1, 2]}]}}', '{"detail": {"n": "1"}}', true),
('anything-but needs a field',  '{"detail": {"n": [{"anything-but": "a"}]}}', '{"detail": {}}', false),
('anything-but prefix',         '{"source": [{"anything-but": {"prefix": "a"}}]}', '{"source": "ab"}', false),
('anything-but suffixes',       '{"source": [{"anything-but": {"suffix": ["a", "b"]}}]}', '{"source": "ac"}', true),
('anything-but ignoring case',  '{"source": [{"anything-but": {"equals-ignore-case": "A"}}]}', '{"source": "a"}', false),
('anything-but wildcard',       '{"source": [{"anything-but": {"wildcard": "a*z"}}]}', '{"source": "abz"}', false),
('cidr',                        '{"detail": {"ip": [{"cidr": "10.0.0.0/24"}]}}', '{"detail": {"ip": "10.0.0.255"}}', true),
('cidr, outside',               '{"detail": {"ip": [{"cidr": "10.0.0.0/24"}]}}', '{"detail": {"ip": "10.0.1.0"}}', false),
('cidr 6',                      '{"detail": {"ip": [{"cidr": "2001:db8::/32"}]}}', '{"detail": {"ip": "2001:DB8:1::1"}}', true),
('$or, first',                  '{"$or": [{"source": ["a"]}, {"region": ["b"]}]}', '{"source": "a"}', true),
('$or, second',                 '{"$or": [{"source": ["a"]}, {"region": ["b"]}]}', '{"region": "b"}', true),
('$or, none',                   '{"$or": [{"source": ["a"]}, {"region": ["b"]}]}', '{"region": "a"}', false),
('$or and a field',             '{"account": ["c"], "$or": [{"source": ["a"]}, {"region": ["b"]}]}', '{"source": "a", "account": "d"}', false),
('$or deeper',                  '{"detail": {"$or": [{"a": [1]}, {"b": [2]}]}}', '{"detail": {"b": 2}}', true);
SELECT count(*) AS cases, count(*) FILTER (WHERE expected) AS matches FROM pattern_case;
SELECT n, rule, expected, mp_match(pattern, event) AS got
  FROM pattern_case WHERE mp_match(pattern, event) IS DISTINCT FROM expected ORDER BY n;
-- The same by the sweep's function, on rows of the log.
SELECT count(mp_emit_event('Case', coalesce(event -> 'detail', '{}'), coalesce(event ->> 'source', 'none'),
                           ARRAY(SELECT jsonb_array_elements_text(event -> 'resources')), 'match', coalesce(event ->> 'region', 'none'),
                           idempotency_key => n::text))
  FROM pattern_case WHERE event ?| ARRAY['detail', 'source'] AND NOT event ? 'account';
SELECT c.n, c.rule, c.expected, meal_planner.matches(c.pattern, e) AS got
  FROM pattern_case c JOIN meal_planner.event e ON e.account = 'match' AND e.idempotency_key = c.n::text
 WHERE meal_planner.matches(c.pattern, e) <> c.expected ORDER BY c.n;
-- And by subscriptions, every one of them against its own event.
CREATE TABLE got (n int);
CREATE FUNCTION on_case(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO got VALUES ((e.detail ->> 'case')::int);
END $$;
SELECT count(mp_subscribe('case ' || n, pattern || jsonb_build_object('account', jsonb_build_array('case ' || n)), 'on_case(meal_planner.event)'))
  FROM pattern_case WHERE event ?| ARRAY['detail', 'source'] AND NOT event ? 'account';
SELECT count(mp_emit_event('Case', coalesce(event -> 'detail', '{}') || jsonb_build_object('case', n), coalesce(event ->> 'source', 'none'),
                           ARRAY(SELECT jsonb_array_elements_text(event -> 'resources')), 'case ' || n, coalesce(event ->> 'region', 'none')))
  FROM pattern_case WHERE event ?| ARRAY['detail', 'source'] AND NOT event ? 'account';
SELECT c.n, c.rule, c.expected FROM pattern_case c
 WHERE event ?| ARRAY['detail', 'source'] AND NOT event ? 'account'
   AND (SELECT count(*) FROM got WHERE got.n = c.n) <> c.expected::int ORDER BY c.n;
DELETE FROM meal_planner.subscription WHERE name LIKE 'case %';

-- An event's own envelope: every field can be asked for.
SELECT mp_emit_event('Full', '{"a": 1}', 'src', '{r1,r2}', 'acc', 'reg', '2026-11-23 10:00:00+00') AS id \gset
SELECT field, mp_match(jsonb_build_object(field, CASE jsonb_typeof(value) WHEN 'object' THEN '{"a": [1]}'
                                                      WHEN 'array' THEN '["r2"]' ELSE jsonb_build_array(value) END),
                       mp_event(:'id', 'acc')) AS of_envelope,
       meal_planner.matches(jsonb_build_object(field, CASE jsonb_typeof(value) WHEN 'object' THEN '{"a": [1]}'
                                                           WHEN 'array' THEN '["r2"]' ELSE jsonb_build_array(value) END), e) AS of_row
  FROM meal_planner.event e, jsonb_each(mp_event(:'id', 'acc')) AS x (field, value)
 WHERE e.account = 'acc' ORDER BY field;

-- NULL, and what is no event.
SELECT mp_match(NULL, '{}') IS NULL AS no_pattern, mp_match('{"a": [1]}', NULL) IS NULL AS no_event;
SELECT mp_match('{"a": [1]}', '[]');
SELECT mp_match('{"a": [1]}', '"a"');

-- Invalid patterns: where, and why.
CREATE FUNCTION pg_temp.refusal(pattern jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN 'valid: ' || mp_match(pattern, '{}');
EXCEPTION WHEN SQLSTATE 'MP400' THEN
    RETURN SQLERRM;
END $$;
SELECT p AS pattern, refusal FROM (VALUES
    ('[]'), ('"x"'), ('1'), ('null'), ('{}'), ('{"detail": {}}'),
    ('{"source": "a"}'), ('{"source": 1}'), ('{"source": null}'), ('{"source": []}'), ('{"source": [["a"]]}'),
    ('{"detail": {"a b": {"c\"d": ["x", {}]}}}'),
    ('{"source": [{"prefix": "a", "suffix": "b"}]}'), ('{"source": ["a", {"sounds-like": "b"}]}'),
    ('{"source": [{"prefix": 1}]}'), ('{"source": [{"prefix": {"suffix": "a"}}]}'), ('{"source": [{"suffix": null}]}'),
    ('{"source": [{"equals-ignore-case": ["a"]}]}'), ('{"source": [{"wildcard": "a**b"}]}'), ('{"source": [{"wildcard": "a\\b"}]}'),
    ('{"source": [{"exists": "yes"}]}'), ('{"source": [{"cidr": "10.0.0.0"}]}'), ('{"source": [{"cidr": "10.0.0.0/33"}]}'),
    ('{"source": [{"cidr": "10.0.0/8"}]}'),
    ('{"detail": {"n": [{"numeric": []}]}}'), ('{"detail": {"n": [{"numeric": [">"]}]}}'), ('{"detail": {"n": [{"numeric": ["!=", 1]}]}}'),
    ('{"detail": {"n": [{"numeric": [">", "1"]}]}}'), ('{"detail": {"n": [{"numeric": ["<", 5, ">", 1]}]}}'),
    ('{"detail": {"n": [{"numeric": [">", 5, "<", 5]}]}}'), ('{"detail": {"n": [{"numeric": ["=", 9007199254740993]}]}}'),
    ('{"source": [{"anything-but": []}]}'), ('{"source": [{"anything-but": ["a", 1]}]}'), ('{"source": [{"anything-but": true}]}'),
    ('{"source": [{"anything-but": {"prefix": ""}}]}'), ('{"source": [{"anything-but": {"numeric": [1]}}]}'),
    ('{"$or": []}'), ('{"$or": [{"a": [1]}]}'), ('{"$or": [{"a": [1]}, {}]}'), ('{"$or": [{"a": [1]}, 1]}'), ('{"$or": [{"a": [1]}, {"prefix": ["x"]}]}'),
    ('{"$or": {"a": [1]}}')
  ) AS t (pattern), LATERAL (SELECT pattern::jsonb AS p) x, LATERAL (SELECT pg_temp.refusal(p)) r (refusal);
SELECT pg_temp.refusal((repeat('{"a":', 64) || '[1]' || repeat('}', 64))::jsonb) AS deep,
       pg_temp.refusal((repeat('{"a":', 65) || '[1]' || repeat('}', 65))::jsonb) AS too_deep;
SELECT mp_match('{"source": "a"}', '{}');

DROP TABLE pattern_case, got;
DROP FUNCTION on_case;
