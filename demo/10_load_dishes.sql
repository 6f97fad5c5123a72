-- Emits one RecipeCreated per dish of demo/dishes.jsonl.  To be run from the
-- top of the checkout.
--
-- The id of a dish comes from its name, so that loading twice changes nothing:
-- the idempotency key finds the first event.
\set ON_ERROR_STOP on
CREATE TEMPORARY TABLE demo_dish (document jsonb);
-- quote and delimiter are characters that JSON text never contains
\copy demo_dish FROM 'demo/dishes.jsonl' WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')

SELECT count(DISTINCT mp_emit_event(
           detail_type => 'RecipeCreated',
           detail => jsonb_build_object('recipe_id', md5('dish:' || (document ->> 'name'))::uuid,
                                        'name', document ->> 'name', 'source', 'demo', 'recipe', document),
           idempotency_key => 'dish:' || (document ->> 'name'))) AS "RecipeCreated events"
  FROM demo_dish;
DROP TABLE demo_dish;
