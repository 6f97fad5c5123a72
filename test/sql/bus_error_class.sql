-- What an error means: codes of SQL, of HTTP and of services, and who may say otherwise.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- What is shipped.
SELECT service, class, string_agg(code, ' ' ORDER BY code) AS codes
  FROM meal_planner.error_class WHERE service <> 'postgres' GROUP BY service, class ORDER BY service, class;
SELECT code, mp_classify_error(code) FROM unnest(ARRAY['25006', '25001', '57P01', '57014', '72000', '58030', '58P01', 'MPR01', 'MPT01', '40003', '08007', '53100']) code;
SELECT code, mp_classify_error(code) AS class
  FROM unnest('{http:200,http:301,http:400,http:404,http:408,http:409,http:425,http:429,http:500,http:501,http:503,http:504,http:599,http:600,http:42,
                fatsecret:1,fatsecret:5,fatsecret:9,fatsecret:12,fatsecret:22,fatsecret:24,fatsecret:106,fatsecret:199,fatsecret:206,fatsecret:42,
                tandoor:403,tandoor:418,tandoor:429,tandoor:502,nobody:1,:,a:}'::text[]) code;
-- The service as an argument; a number of its own is no SQLSTATE, and the other way round.
SELECT mp_classify_error('22', NULL, 'fatsecret') AS access_refused, mp_classify_error('22012') AS division_by_zero,
       mp_classify_error('22', NULL, 'postgres') AS a_family, mp_classify_error('40001', NULL, 'fatsecret') AS none_of_its,
       mp_classify_error('429', service => 'http') AS quota, mp_classify_error('x:y', NULL, 'http') AS whatever;

-- Somebody knows better: the subscription before its service, that before the code's own; a code before its family.
CREATE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
SELECT mp_subscribe('mine', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"service": "fatsecret"}'),
       mp_subscribe('plain', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)');
CREATE VIEW classes AS
SELECT code, mp_classify_error(code) AS of_all, mp_classify_error(code, 'plain') AS plain, mp_classify_error(code, 'mine') AS mine
  FROM unnest('{http:404,http:410,fatsecret:106,08006,08001}'::text[]) code;
SELECT * FROM classes;
SELECT mp_set_error_class('http', '4xx', 'unknown_outcome');
SELECT mp_set_error_class('fatsecret', 'http:4xx', 'timeout');
SELECT mp_set_error_class('fatsecret', 'http:404', 'contention');
SELECT mp_set_error_class('fatsecret', 'postgres:08', 'resource');
SELECT mp_set_error_class('fatsecret', '106', 'shutdown');
SELECT * FROM classes;
SELECT mp_set_error_class('subscription:mine', 'http:4xx', 'deploy');
SELECT mp_set_error_class('subscription:mine', '08', 'permanent');
SELECT mp_set_error_class('subscription:mine', '08006', 'transient');
SELECT mp_set_error_class('subscription:plain', 'fatsecret:106', 'timeout');
SELECT * FROM classes;
-- Once more, the same, another one.
SELECT mp_set_error_class('subscription:mine', '08006', 'transient');
SELECT mp_set_error_class('subscription:mine', '08006', 'timeout');
SELECT service, code, class, builtin, shipped FROM meal_planner.error_class WHERE NOT builtin ORDER BY service COLLATE "C", code COLLATE "C";
-- Taken back, what was shipped holds again.
SELECT mp_set_error_class(service, code, NULL) FROM meal_planner.error_class WHERE NOT builtin;
SELECT mp_set_error_class('subscription:mine', '08', NULL);
SELECT count(*) FROM meal_planner.error_class WHERE NOT builtin;
SELECT * FROM classes;

-- What is wrong.
SELECT mp_set_error_class('http', '429', 'later');
SELECT mp_set_error_class('http', '29', 'transient');
SELECT mp_set_error_class('http', 'Nxx', 'transient');
SELECT mp_set_error_class('postgres', '2301', 'transient');
SELECT mp_set_error_class('postgres', '23x01', 'transient');
SELECT mp_set_error_class('http:429', '429', 'transient');
SELECT mp_set_error_class('subscription:', '23505', 'transient');
SELECT mp_set_error_class(NULL, '429', 'transient');
SELECT mp_set_error_class('mailer', '', 'transient');
SELECT mp_set_error_class('mailer', NULL, 'transient');
SELECT mp_set_error_class('mailer', '42', 'transient'), mp_set_error_class('mailer', '42', NULL);
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"service": "a:b"}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"service": ""}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"service": 3}');

-- A handler says it in the detail of MPR01; that of any other error is the error's own business.
SELECT mp_unsubscribe('mine'), mp_unsubscribe('plain');
CREATE FUNCTION on_call(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the service says %', e.detail ->> 'detail'
        USING ERRCODE = coalesce(e.detail ->> 'code', 'MPR01'), DETAIL = e.detail ->> 'detail';
END $$;
SELECT mp_subscribe('call', '{"detail-type": ["Call"]}', 'on_call(meal_planner.event)', options => '{"service": "fatsecret"}');
CREATE FUNCTION call(detail text, code text DEFAULT NULL) RETURNS TABLE (attempt int, contentions int, wait numeric, dead text, paused boolean) LANGUAGE plpgsql AS $$
DECLARE
    emitted uuid := mp_emit_event('Call', jsonb_strip_nulls(jsonb_build_object('detail', detail, 'code', code)));
BEGIN
    RETURN QUERY
    SELECT d.attempt, d.contentions, round(extract(epoch FROM d.next_attempt_at - meal_planner.clock())),
           (SELECT l.reason || ' ' || l.sqlstate FROM mp_dlq l WHERE l.event_id = emitted),
           (SELECT s.paused FROM mp_subscriptions s WHERE s.name = 'call')
      FROM (SELECT) one LEFT JOIN meal_planner.delivery d ON d.event_id = emitted;
    PERFORM mp_resume_subscription('call');
    DELETE FROM meal_planner.delivery;
END $$;
SELECT * FROM call('code=http:503');
SELECT * FROM call('code=http:404');
SELECT * FROM call('code=http:429');
SELECT * FROM call('code=fatsecret:12 retry_after=60');
SELECT * FROM call('code=fatsecret:106');
SELECT * FROM call('code=fatsecret:5');
SELECT * FROM call('code=postgres:57P01');
SELECT wait, attempt, contentions FROM call('code=postgres:40001');
SELECT * FROM call('no words');
SELECT * FROM call('retry_after=7');
SELECT * FROM call('retry_after=7', 'MPT01');
SELECT wait BETWEEN 290 AND 300 AS as_the_date_says
  FROM call('retry_after=' || to_char((meal_planner.clock() + interval '5 min') AT TIME ZONE 'UTC', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'), 'MPT01');
SELECT * FROM call('retry_after=99999999999999999999', 'MPT01');
-- only MPR01 has a code, and no other error any words
SELECT * FROM call('code=http:404', 'MPT01');
SELECT * FROM call('code=http:404 retry_after=99', '08006');
SELECT * FROM call('retry_after=99', 'MPP01');
SELECT mp_unsubscribe('call');

-- A consumer says it in error_type.
SELECT mp_subscribe('pull', '{"detail-type": ["Pull"]}', mode => 'pull', options => '{"service": "fatsecret"}');
CREATE FUNCTION fail(error_type text, retry_after float8 DEFAULT NULL)
RETURNS TABLE (outcome text, attempt int, contentions int, wait numeric, code text, dead text, paused boolean) LANGUAGE plpgsql AS $$
DECLARE
    claim record;
    answer text;
BEGIN
    SELECT c.token, c.event_id INTO claim FROM mp_claim('pull', 1) c;
    answer := mp_fail(claim.token, claim.event_id, error_type, 'it failed', retry_after);
    RETURN QUERY
    SELECT answer, d.attempt, d.contentions, round(extract(epoch FROM d.next_attempt_at - meal_planner.clock())), d.sqlstate,
           (SELECT l.error_type || ' ' || l.reason || coalesce(' ' || l.sqlstate, '') FROM mp_dlq l WHERE l.event_id = claim.event_id),
           (SELECT s.paused FROM mp_subscriptions s WHERE s.name = 'pull')
      FROM (SELECT) one LEFT JOIN meal_planner.delivery d ON d.event_id = claim.event_id;
    PERFORM mp_resume_subscription('pull');
    DELETE FROM meal_planner.delivery;
END $$;
SELECT count(mp_emit_event('Pull', '{}')) FROM generate_series(1, 30);
SELECT * FROM fail('transient');
SELECT * FROM fail('timeout');
SELECT * FROM fail('resource');
SELECT * FROM fail('unknown_outcome');
SELECT * FROM fail('shutdown');
SELECT * FROM fail('contention');
SELECT * FROM fail('permanent');
SELECT * FROM fail('deploy');
SELECT * FROM fail('deferred');
SELECT * FROM fail('deferred', 30);
SELECT * FROM fail('http:429');
SELECT * FROM fail('http:429', 100);
SELECT * FROM fail('http:410');
SELECT * FROM fail('fatsecret:106');
SELECT * FROM fail('fatsecret:21');
SELECT * FROM fail('nobody:1');
SELECT * FROM fail('429');
SELECT * FROM fail('http:');
SELECT * FROM fail(':429');
SELECT * FROM fail('');
SELECT * FROM fail(NULL);
SELECT * FROM fail('x:' || repeat('y', 99));
-- An error that may have been none after all: a subscription may have it looked at instead.
SELECT mp_subscribe('pull', '{"detail-type": ["Pull"]}', mode => 'pull', options => '{"on_unknown_outcome": "dead"}');
SELECT * FROM fail('unknown_outcome');
SELECT * FROM fail('timeout');
SELECT mp_subscribe('pull', '{"detail-type": ["Pull"]}', mode => 'pull', options => '{"on_unknown_outcome": "skip"}');
SELECT mp_unsubscribe('pull');

DROP VIEW classes;
DROP FUNCTION on_e, on_call, call, fail;
