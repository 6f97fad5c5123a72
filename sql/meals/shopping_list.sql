-- Shopping lists: what a plan needs, the same food added up, by aisle.

CREATE TABLE meal_planner.shopping_list (
    account      text        NOT NULL,
    id           uuid        NOT NULL,
    meal_plan_id uuid,
    status       text        NOT NULL CHECK (status IN ('open', 'completed', 'cancelled')),
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (account, id)
);
COMMENT ON TABLE meal_planner.shopping_list IS 'shopping lists, a projection of ShoppingListCreated';
SELECT pg_extension_config_dump('meal_planner.shopping_list', '');

CREATE TABLE meal_planner.shopping_list_item (
    account  text    NOT NULL,
    list_id  uuid    NOT NULL,
    item_no  int     NOT NULL,
    food     text,
    label    text    NOT NULL,
    aisle    text    NOT NULL,
    quantity numeric,
    unit     text,
    grams    numeric,
    to_taste boolean NOT NULL,
    display  text    NOT NULL,
    checked  boolean NOT NULL,
    PRIMARY KEY (account, list_id, item_no),
    FOREIGN KEY (account, list_id) REFERENCES meal_planner.shopping_list (account, id)
);
COMMENT ON TABLE meal_planner.shopping_list_item IS 'what to buy; quantity and grams are exact, display is rounded up to what one buys';
COMMENT ON COLUMN meal_planner.shopping_list_item.food IS 'NULL: a line that was not understood, kept as written';
SELECT pg_extension_config_dump('meal_planner.shopping_list_item', '');

CREATE TABLE meal_planner.shopping_list_item_source (
    account   text    NOT NULL,
    list_id   uuid    NOT NULL,
    item_no   int     NOT NULL,
    recipe_id uuid    NOT NULL,
    name      text    NOT NULL,
    servings  numeric NOT NULL,
    grams     numeric,
    PRIMARY KEY (account, list_id, item_no, recipe_id),
    FOREIGN KEY (account, list_id, item_no) REFERENCES meal_planner.shopping_list_item (account, list_id, item_no)
);
COMMENT ON TABLE meal_planner.shopping_list_item_source IS 'which recipes need an item, cooked in how many servings';
SELECT pg_extension_config_dump('meal_planner.shopping_list_item_source', '');

-- Thousandths are noise of divisions; without this a third three times would buy a fourth.
CREATE FUNCTION meal_planner.round_up(quantity numeric, step numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT trim_scale(ceil(round($1 / $2, 3)) * $2) $$;
COMMENT ON FUNCTION meal_planner.round_up(numeric, numeric) IS 'the next multiple of step, forgiving a thousandth of it';

-- 1000 and more in the big unit, steps that a scale or a jug shows.
CREATE FUNCTION meal_planner.show_amount(quantity numeric, small text, big text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN $1 > 995 THEN trim_scale(meal_planner.round_up($1 / 1000, 0.05)) || ' ' || $3
                WHEN $1 > 20 THEN meal_planner.round_up($1, 5) || ' ' || $2
                ELSE meal_planner.round_up($1, 1) || ' ' || $2 END
$$;
COMMENT ON FUNCTION meal_planner.show_amount(numeric, text, text) IS 'grams or ml as one buys them, rounded up';

CREATE FUNCTION meal_planner.show_spoons(ml numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(' ', nullif(whole, 0), CASE quarter WHEN 1 THEN '1/4' WHEN 2 THEN '1/2' WHEN 3 THEN '3/4' END, spoon)
      FROM (SELECT div(q, 4) AS whole, mod(q, 4)::int AS quarter, spoon
              FROM (SELECT CASE WHEN $1 < 14 THEN 'tsp' ELSE 'tbsp' END AS spoon,
                           ceil(round(4 * $1 / CASE WHEN $1 < 14 THEN 4.92892159375 ELSE 14.78676478125 END, 2)) AS q) s) t
$$;
COMMENT ON FUNCTION meal_planner.show_spoons(numeric) IS 'a small volume in quarters of a spoon, rounded up';

-- The unit in which a shop sells what a kitchen counts or spoons: onions by the
-- piece, herbs by the bunch, garlic by the head.
CREATE FUNCTION meal_planner.purchase_unit(food text, asked text[], by_volume boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT u.unit
      FROM (VALUES ('can', 1), ('jar', 2), ('package', 3), ('block', 4), ('ball', 5), ('bunch', 6), ('head', 7),
                   ('piece', 8), ('breast', 9), ('fillet', 10), ('thigh', 11), ('drumstick', 12), ('ear', 13),
                   ('link', 14), ('nest', 15), ('sheet', 16), ('bar', 17), ('stalk', 18), ('slice', 19), ('stick', 20),
                   ('clove', 21), ('spear', 22), ('sprig', 23), ('leaf', 24), ('knob', 25), ('floret', 26),
                   ('handful', 27), ('scoop', 28), ('square', 29)) AS u (unit, rank)
      JOIN meal_planner.food_measure m ON m.food = $1 AND m.unit = u.unit
      JOIN meal_planner.food f ON f.name = $1
      LEFT JOIN meal_planner.food_measure piece ON piece.food = $1 AND piece.unit = 'piece'
     WHERE u.unit = ANY ($2)
        OR u.unit IN ('head', 'bunch')
           AND $2 && ARRAY['clove', 'sprig', 'leaf', 'stalk', 'floret', 'stick', 'handful', 'head', 'bunch']
        -- produce in cups and spoons: by the head or bunch, else by the piece when one is big enough to count
        OR f.aisle = 'Fruit & vegetables' AND NOT f.liquid
           AND ($3 AND (u.unit = 'head' OR u.unit = 'bunch' AND piece.grams IS NULL)
                OR u.unit = 'piece' AND m.grams >= 40 AND ($3 OR $2 && ARRAY['leaf', 'floret', 'slice', 'knob']))
     ORDER BY u.rank
     LIMIT 1
$$;
COMMENT ON FUNCTION meal_planner.purchase_unit(text, text[], boolean) IS
'the count unit in which one buys a food that recipes ask for in these count units, or by volume; NULL: by weight';

CREATE FUNCTION meal_planner.show_count(quantity numeric, unit text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN $2 = 'piece' THEN n::text
                ELSE n || ' ' || coalesce((SELECT CASE WHEN n = 1 THEN u.name ELSE u.plural END
                                             FROM meal_planner.unit u WHERE u.code = $2), $2) END
      FROM (SELECT meal_planner.round_up($1, 1)) AS c (n)
$$;
COMMENT ON FUNCTION meal_planner.show_count(numeric, text) IS 'a number of pieces, cans, bunches, rounded up to whole ones';

-- The items of a list for a plan, in the order of the shop.
CREATE FUNCTION meal_planner.collect_shopping(account text, plan_id uuid)
RETURNS TABLE (item_no int, food text, label text, aisle text, quantity numeric, unit text, grams numeric,
               to_taste boolean, display text, sources jsonb)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
-- the planner overestimates JSON and would compile for a second what runs for ten milliseconds
SET jit = off
AS $$
    WITH cooked AS (
        -- one recipe cooked twice is one source
        SELECT e.recipe_id, r.name, sum(e.servings * p.people) AS servings, sum(e.servings * p.people) / r.servings AS factor
          FROM meal_planner.meal_plan p
          JOIN meal_planner.meal_plan_entry e ON e.account = p.account AND e.plan_id = p.id
          JOIN meal_planner.recipe r ON r.account = e.account AND r.id = e.recipe_id
         WHERE p.account = $1 AND p.id = $2
         GROUP BY e.recipe_id, r.name, r.servings),
    need AS (
        SELECT c.recipe_id, c.name, c.servings, f.name AS food, i.raw_text, i.no_amount, i.unit, u.dimension,
               i.grams_high * c.factor AS grams, i.quantity_high * c.factor AS quantity, c.factor,
               u.to_base * i.quantity_high * c.factor AS base,
               -- what has no weight is kept apart, by its unit; what is unknown, by its words
               CASE WHEN f.name IS NULL THEN 'line:' || lower(i.raw_text)
                    WHEN i.grams_high IS NULL AND NOT i.no_amount THEN 'food:' || f.name || ':' || coalesce(i.unit, 'piece')
                    ELSE 'food:' || f.name END AS item,
               f.name IS NULL AS unknown, f.name IS NOT NULL AND i.grams_high IS NULL AND NOT i.no_amount AS unweighed
          FROM cooked c
          JOIN meal_planner.recipe_ingredient i ON i.account = $1 AND i.recipe_id = c.recipe_id
          LEFT JOIN meal_planner.food f ON f.name = i.food
          LEFT JOIN meal_planner.unit u ON u.code = coalesce(i.unit, 'piece') AND NOT i.no_amount
         WHERE coalesce(f.bought, true)),
    source AS (
        SELECT n.item, n.recipe_id, n.name, n.servings, sum(n.grams) AS grams
          FROM need n GROUP BY n.item, n.recipe_id, n.name, n.servings),
    item AS (
        SELECT n.item, n.food, n.unknown, n.unweighed, sum(n.grams) AS grams, sum(n.quantity) AS quantity,
               sum(n.base) FILTER (WHERE n.dimension = 'volume') AS ml,
               bool_and(coalesce(n.dimension = 'volume', true)) AS only_volume,
               bool_or(n.no_amount) AS to_taste, bool_and(n.no_amount) AS only_to_taste,
               min(n.raw_text) AS raw_text, min(n.unit) AS unit, sum(n.factor) AS factor,
               array_agg(DISTINCT coalesce(n.unit, 'piece')) FILTER (WHERE n.dimension = 'count') AS counted
          FROM need n GROUP BY n.item, n.food, n.unknown, n.unweighed),
    priced AS (
        SELECT i.*, f.plural, f.liquid, f.grams_per_ml, f.aisle, pu.unit AS buy_unit, m.grams AS buy_grams
          FROM item i
          LEFT JOIN meal_planner.food f ON f.name = i.food
          LEFT JOIN LATERAL (SELECT meal_planner.purchase_unit(i.food, coalesce(i.counted, '{}'), i.ml IS NOT NULL) AS unit
                              WHERE NOT i.unweighed AND NOT i.unknown) pu ON true
          LEFT JOIN meal_planner.food_measure m ON m.food = i.food AND m.unit = pu.unit),
    chosen AS (
        SELECT p.*, v.quantity AS buy, v.unit AS in_unit, v.display
          FROM priced p
          CROSS JOIN LATERAL (
              SELECT NULL::numeric AS quantity, NULL::text AS unit,
                     CASE WHEN p.only_to_taste OR round(p.factor, 3) = 1 THEN ''
                          ELSE 'x ' || trim_scale(round(p.factor, 2)) END AS display
               WHERE p.unknown
              UNION ALL
              SELECT NULL, NULL, '' WHERE NOT p.unknown AND p.only_to_taste
              UNION ALL
              SELECT p.quantity, coalesce(p.unit, 'piece'), meal_planner.show_count(p.quantity, coalesce(p.unit, 'piece'))
               WHERE p.unweighed
              UNION ALL
              SELECT p.grams / p.buy_grams, p.buy_unit,
                     meal_planner.show_count(p.grams / p.buy_grams, p.buy_unit)
                     || ' (' || meal_planner.show_amount(p.grams, 'g', 'kg') || ')'
               WHERE NOT p.unknown AND NOT p.only_to_taste AND NOT p.unweighed AND p.buy_grams IS NOT NULL
              UNION ALL
              SELECT p.grams / p.grams_per_ml, 'ml', meal_planner.show_amount(p.grams / p.grams_per_ml, 'ml', 'l')
               WHERE NOT p.unknown AND NOT p.only_to_taste AND NOT p.unweighed AND p.buy_grams IS NULL AND p.liquid
              UNION ALL
              -- nobody weighs 2 g of cumin
              SELECT p.grams, 'g',
                     CASE WHEN p.only_volume AND p.ml <= 45 AND p.grams < 30
                          THEN meal_planner.show_spoons(p.ml)
                              || CASE WHEN p.grams >= 5 THEN ' (' || meal_planner.show_amount(p.grams, 'g', 'kg') || ')' ELSE '' END
                          ELSE meal_planner.show_amount(p.grams, 'g', 'kg') END
               WHERE NOT p.unknown AND NOT p.only_to_taste AND NOT p.unweighed AND p.buy_grams IS NULL
                 AND p.liquid IS NOT TRUE) v)
    SELECT (row_number() OVER (ORDER BY coalesce(a.sort_order, 2147483647), coalesce(a.name, 'Other'), c.unknown,
                                        coalesce(c.food, lower(c.raw_text)), c.item))::int,
           c.food,
           CASE WHEN c.unknown THEN c.raw_text
                WHEN c.in_unit IN ('head', 'bunch', 'ball', 'block')
                     OR c.in_unit = 'piece' AND meal_planner.round_up(c.buy, 1) = 1 THEN c.food
                ELSE coalesce(c.plural, c.food) END,
           coalesce(a.name, 'Other'), c.buy, c.in_unit, c.grams, c.to_taste,
           c.display || CASE WHEN c.to_taste AND NOT c.unknown
                             THEN CASE WHEN c.only_to_taste THEN 'to taste' ELSE ' + to taste' END ELSE '' END,
           (SELECT jsonb_agg(jsonb_build_object('recipe_id', s.recipe_id, 'name', s.name, 'servings', s.servings, 'grams', s.grams)
                             ORDER BY s.name, s.recipe_id)
              FROM source s WHERE s.item = c.item)
      FROM chosen c
      LEFT JOIN meal_planner.aisle a ON a.name = CASE WHEN c.unknown THEN 'Other' ELSE c.aisle END
     ORDER BY 1
$$;
COMMENT ON FUNCTION meal_planner.collect_shopping(text, uuid) IS
'the items a plan needs: servings of every meal times people over the servings of the recipe, added up per food in grams';

CREATE FUNCTION @extschema@.mp_create_shopping_list(meal_plan_id uuid, account text DEFAULT 'local') RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant  text := coalesce(account, 'local');
    list_id uuid := gen_random_uuid();
    items   jsonb;
BEGIN
    IF NOT EXISTS (SELECT FROM meal_planner.meal_plan p WHERE p.account = tenant AND p.id = $1) THEN
        PERFORM meal_planner.refuse('MP404', format('meal plan %s does not exist', $1), 'Check the id and the account.');
    END IF;
    SELECT coalesce(jsonb_agg(to_jsonb(i) ORDER BY i.item_no), '[]') INTO items
      FROM meal_planner.collect_shopping(tenant, $1) AS i;
    PERFORM @extschema@.mp_emit_event(
        detail_type => 'ShoppingListCreated',
        detail => jsonb_build_object('list_id', list_id, 'meal_plan_id', $1, 'item_count', jsonb_array_length(items),
                                     'items', items),
        account => tenant,
        stream => 'shopping_list:' || list_id,
        expected_version => 0);
    RETURN list_id;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_create_shopping_list(uuid, text) IS
'makes the shopping list of a plan, emits ShoppingListCreated and returns the list''s id. The upper end of a range is bought; lines that were not understood are listed as written. MP404';

CREATE FUNCTION meal_planner.on_shopping_list_created(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target    uuid := meal_planner.json_uuid(e.detail -> 'list_id');
    items jsonb := e.detail -> 'items';
BEGIN
    IF target IS NULL THEN
        PERFORM meal_planner.refuse('MP400', 'detail.list_id must be a uuid', 'Correct the detail.');
    END IF;
    IF jsonb_typeof(items) IS DISTINCT FROM 'array' THEN
        IF NOT EXISTS (SELECT FROM meal_planner.shopping_list l WHERE l.account = e.account AND l.id = target) THEN
            PERFORM meal_planner.refuse('MP404', format('shopping list %s does not exist and detail.items is missing', target),
                                        'Send the items, or call mp_create_shopping_list.');
        END IF;
        RETURN;
    END IF;
    INSERT INTO meal_planner.shopping_list (account, id, meal_plan_id, status, created_at)
    VALUES (e.account, target, meal_planner.json_uuid(e.detail -> 'meal_plan_id'), 'open', e."time")
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        IF (SELECT jsonb_agg(jsonb_build_array(i.item_no, i.label, i.display) ORDER BY i.item_no)
              FROM meal_planner.shopping_list_item i WHERE i.account = e.account AND i.list_id = target)
           IS DISTINCT FROM
           (SELECT jsonb_agg(jsonb_build_array(x.item_no, x.label, coalesce(x.display, '')) ORDER BY x.item_no)
              FROM jsonb_to_recordset(items) AS x (item_no int, label text, display text)) THEN
            PERFORM meal_planner.refuse('MP409', format('shopping list %s exists with other items', target),
                                        'Send a new list with a new id.');
        END IF;
        RETURN;
    END IF;
    INSERT INTO meal_planner.shopping_list_item
           (account, list_id, item_no, food, label, aisle, quantity, unit, grams, to_taste, display, checked)
    SELECT e.account, target, x.item_no, x.food, x.label, coalesce(x.aisle, 'Other'), x.quantity, x.unit, x.grams,
           coalesce(x.to_taste, false), coalesce(x.display, ''), false
      FROM jsonb_to_recordset(items) AS x (item_no int, food text, label text, aisle text, quantity numeric, unit text,
                                           grams numeric, to_taste boolean, display text);
    INSERT INTO meal_planner.shopping_list_item_source (account, list_id, item_no, recipe_id, name, servings, grams)
    SELECT e.account, target, x.item_no, s.recipe_id, s.name, s.servings, s.grams
      FROM jsonb_to_recordset(items) AS x (item_no int, sources jsonb)
      CROSS JOIN LATERAL jsonb_to_recordset(x.sources) AS s (recipe_id uuid, name text, servings numeric, grams numeric)
     WHERE jsonb_typeof(x.sources) = 'array';
END
$$;
COMMENT ON FUNCTION meal_planner.on_shopping_list_created(meal_planner.event) IS
'handler: stores the list; the same list again changes nothing';

CREATE FUNCTION @extschema@.mp_shopping_list(id uuid, account text DEFAULT 'local') RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := coalesce(account, 'local');
    result jsonb;
BEGIN
    SELECT jsonb_build_object(
               'list_id', l.id, 'meal_plan_id', l.meal_plan_id, 'status', l.status, 'created_at', l.created_at,
               'item_count', (SELECT count(*) FROM meal_planner.shopping_list_item i WHERE i.account = tenant AND i.list_id = l.id),
               'aisles', (SELECT coalesce(jsonb_agg(jsonb_build_object('aisle', g.aisle, 'items', g.items) ORDER BY g.first), '[]')
                            FROM (SELECT i.aisle, min(i.item_no) AS first,
                                         jsonb_agg(jsonb_build_object(
                                             'item_no', i.item_no, 'food', i.food, 'label', i.label, 'display', i.display,
                                             'quantity', trim_scale(round(i.quantity, 3)), 'unit', i.unit,
                                             'grams', round(i.grams, 1), 'to_taste', i.to_taste, 'checked', i.checked,
                                             'recipes', (SELECT coalesce(jsonb_agg(s.name ORDER BY s.name), '[]')
                                                           FROM meal_planner.shopping_list_item_source s
                                                          WHERE s.account = tenant AND s.list_id = l.id AND s.item_no = i.item_no))
                                             ORDER BY i.item_no) AS items
                                    FROM meal_planner.shopping_list_item i
                                   WHERE i.account = tenant AND i.list_id = l.id
                                   GROUP BY i.aisle) g))
      INTO result
      FROM meal_planner.shopping_list l
     WHERE l.account = tenant AND l.id = $1;
    IF result IS NULL THEN
        PERFORM meal_planner.refuse('MP404', format('shopping list %s does not exist', $1), 'Check the id and the account.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_shopping_list(uuid, text) IS
'a shopping list: {list_id, meal_plan_id, status, item_count, aisles [{aisle, items [{item_no, food, label, display, quantity, unit, grams, to_taste, checked, recipes}]}]} in the order of the shop. MP404';
