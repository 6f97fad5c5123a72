-- Which routines and views a kind of client needs, by name; the domain adds its
-- own.  mp_grant reads it.

CREATE TABLE meal_planner.grant_profile (
    profile text NOT NULL,
    object  text NOT NULL,
    PRIMARY KEY (profile, object)
);
COMMENT ON TABLE meal_planner.grant_profile IS
'what mp_grant grants: names of routines (EXECUTE) and views (SELECT) of the extension by profile';

INSERT INTO meal_planner.grant_profile (profile, object)
SELECT p.profile, o.object
  FROM (VALUES
    ('emitter', ARRAY['mp_emit_event', 'mp_put_events', 'mp_start_saga']),
    ('reader', ARRAY['mp_event', 'mp_read_events', 'mp_read_stream']),
    ('consumer', ARRAY['mp_claim', 'mp_claim_json', 'mp_ack', 'mp_fail', 'mp_extend',
                       'mp_check_processed', 'mp_mark_processed',
                       'mp_begin_operation', 'mp_complete_operation', 'mp_release_operation',
                       'mp_breaker_acquire', 'mp_breaker_report',
                       'mp_claim_saga_steps', 'mp_complete_saga_step', 'mp_fail_saga_step', 'mp_extend_saga_step']),
    ('sweeper', ARRAY['mp_sweep', 'sweep_announce', 'sweep_begin', 'sweep_claim', 'sweep_end', 'sweep_maintain', 'sweep_purge',
                      'sweep_retain', 'sweep_history', 'sweep_run', 'sweep_breakers_moved', 'sweep_breakers', 'sweep_breaker_events',
                      'sweep_sleep', 'next_due']),
    ('operator', ARRAY['mp_subscribe', 'mp_unsubscribe', 'mp_pause_subscription', 'mp_resume_subscription',
                       'mp_send_to_dlq', 'mp_replay_dlq', 'mp_discard_dlq', 'mp_redrive_dlq', 'mp_pause_redrive', 'mp_resume_redrive',
                       'mp_cancel_redrive', 'mp_redrives', 'redrive_may_run', 'mp_replay', 'mp_cancel_replay', 'mp_replays',
                       'mp_in_flight', 'in_flight', 'mp_dlq', 'mp_dlq_depth', 'mp_attempts', 'mp_dlq_attempts', 'mp_alerts', 'mp_acknowledge_alert', 'mp_event_rates',
                       'mp_set_error_class', 'mp_retry_budgets', 'retry_budget', 'mp_set_retention', 'mp_partitions', 'partition_holder', 'mp_subscriptions', 'cursor_position', 'accounts', 'is_broken',
                       'mp_handler_stats', 'handler_stats', 'mp_operations',
                       'mp_breaker_configure', 'mp_breaker_force', 'mp_breakers', 'breakers',
                       'mp_define_saga', 'mp_drop_saga', 'mp_cancel_saga', 'mp_retry_saga', 'mp_skip_saga_step', 'mp_migrate_saga',
                       'mp_saga', 'mp_saga_graph', 'mp_sagas', 'saga_steps'])
  ) AS p (profile, objects),
  LATERAL unnest(p.objects) AS o (object);
INSERT INTO meal_planner.grant_profile (profile, object)
SELECT 'operator', g.object
  FROM meal_planner.grant_profile g
 WHERE g.profile IN ('emitter', 'reader', 'consumer', 'sweeper');
