-- Recipes: their tables, the reading of ingredient lines, RecipeCreated.

-- What the starter data does not say, and the end of it: rows added from here
-- on belong to the people who add them, and a dump carries them.
UPDATE meal_planner.food
   SET liquid = grams_per_ml IS NOT NULL
            AND (aisle IN ('Drinks', 'Oils & vinegars')
                 OR name ~ '\m(milk|buttermilk|kefir|cream|broth|stock|juice|wine|sauce|syrup|passata|water)$')
            AND name !~ '\m(coconut oil|sour cream|ice cream)$',
       bought = name <> 'water';
ALTER TABLE meal_planner.unit ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.unit_alias ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.aisle ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.nutrient ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.food ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.food_alias ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.food_measure ALTER builtin SET DEFAULT false;
ALTER TABLE meal_planner.food_nutrient ALTER builtin SET DEFAULT false;

-- A starter row that people change becomes theirs too, as a changed error class
-- does.  Other rows may refer to the one that it takes the place of, so that
-- one is not deleted but given the new values.
CREATE FUNCTION meal_planner.update_shipped() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_values text;
    same_key   text;
    updated    bigint;
BEGIN
    SELECT string_agg(format('%1$I = ($1).%1$I', a.attname), ', ') INTO new_values
      FROM pg_attribute a
     WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped;
    SELECT string_agg(format('t.%1$I = ($1).%1$I', k.key), ' AND ') INTO same_key
      FROM unnest(TG_ARGV) AS k (key);
    EXECUTE format('UPDATE %I.%I t SET %s WHERE t.builtin AND %s', TG_TABLE_SCHEMA, TG_TABLE_NAME, new_values, same_key)
      USING NEW;
    GET DIAGNOSTICS updated = ROW_COUNT;
    IF updated > 0 THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION meal_planner.update_shipped() IS
'a restored row gives its values to the shipped one of the same key, if there is one, instead of being inserted';

DO $$
DECLARE
    starter record;
BEGIN
    FOR starter IN
        SELECT * FROM (VALUES
            ('unit', 'code'), ('unit_alias', 'alias'), ('aisle', 'name'), ('nutrient', 'code'), ('food', 'name'),
            ('food_alias', 'alias'), ('food_measure', 'food, unit'), ('food_nutrient', 'food, nutrient')) AS s (name, key)
    LOOP
        EXECUTE format('CREATE TRIGGER keep_user_version BEFORE UPDATE ON meal_planner.%I FOR EACH ROW WHEN (old.builtin)
                        EXECUTE FUNCTION meal_planner.keep_user_version(%s)', starter.name, starter.key);
        EXECUTE format('CREATE TRIGGER update_shipped BEFORE INSERT ON meal_planner.%I FOR EACH ROW WHEN (NOT new.builtin)
                        EXECUTE FUNCTION meal_planner.update_shipped(%s)', starter.name, starter.key);
    END LOOP;
END
$$;

CREATE TABLE meal_planner.recipe (
    account      text        NOT NULL,
    id           uuid        NOT NULL,
    name         text        NOT NULL,
    servings     int         NOT NULL CHECK (servings BETWEEN 1 AND 100),
    description  text,
    category     text,
    cuisine      text,
    meal_types   text[]      NOT NULL,
    tags         text[]      NOT NULL,
    allergens    text[],
    prep_minutes int,
    cook_minutes int,
    steps        text[]      NOT NULL,
    source       text        NOT NULL,
    source_url   text,
    status       text        NOT NULL CHECK (status IN ('active', 'deleted')),
    content_hash text        NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (account, id)
);
COMMENT ON TABLE meal_planner.recipe IS 'recipes, a projection of RecipeCreated';
COMMENT ON COLUMN meal_planner.recipe.allergens IS 'NULL: nobody said, which an exclusion treats as unsafe; empty: none';
COMMENT ON COLUMN meal_planner.recipe.content_hash IS 'tells the same document again from another one with the same id';
SELECT pg_extension_config_dump('meal_planner.recipe', '');

CREATE TABLE meal_planner.recipe_ingredient (
    account       text    NOT NULL,
    recipe_id     uuid    NOT NULL,
    line_no       int     NOT NULL,
    raw_text      text    NOT NULL,
    food          text,
    label         text    NOT NULL,
    quantity_low  numeric,
    quantity_high numeric,
    unit          text,
    each_quantity numeric,
    each_unit     text,
    note          text,
    no_amount     boolean NOT NULL,
    grams         numeric,
    grams_high    numeric,
    problem       text,
    PRIMARY KEY (account, recipe_id, line_no),
    FOREIGN KEY (account, recipe_id) REFERENCES meal_planner.recipe (account, id)
);
COMMENT ON TABLE meal_planner.recipe_ingredient IS 'the lines of a recipe as read; raw_text is what was written';
COMMENT ON COLUMN meal_planner.recipe_ingredient.food IS 'NULL: no known food; the line is then never counted as zero';
COMMENT ON COLUMN meal_planner.recipe_ingredient.no_amount IS 'to taste and the like: counts neither for nor against the coverage';
COMMENT ON COLUMN meal_planner.recipe_ingredient.grams IS 'middle of a range, for nutrition; grams_high is its end, for shopping';
COMMENT ON COLUMN meal_planner.recipe_ingredient.problem IS 'why grams is unknown';
SELECT pg_extension_config_dump('meal_planner.recipe_ingredient', '');

CREATE FUNCTION meal_planner.parse_quantity(line text, OUT low numeric, OUT high numeric, OUT each numeric,
                                            OUT approximate boolean, OUT rest text)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_parse_quantity';
COMMENT ON FUNCTION meal_planner.parse_quantity(text) IS
'the amount at the start of a line (2, 1 1/2, 2-3, 2 x 400) and the rest of the line; NULL when there is none';

-- "400 g" or "14-ounce": an amount with a unit of mass or volume, and what follows.
CREATE FUNCTION meal_planner.read_measured(written text, OUT quantity numeric, OUT unit text, OUT rest text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    amount record;
    word   text;
BEGIN
    SELECT * INTO amount FROM meal_planner.parse_quantity(written);
    IF amount.low IS NULL OR amount.each IS NOT NULL THEN
        RETURN;
    END IF;
    word := substring(amount.rest FROM '^[[:space:]-]*([[:alpha:]]+\.?)');
    SELECT u.code INTO unit
      FROM meal_planner.unit u
     WHERE u.code = meal_planner.resolve_unit(word) AND u.dimension <> 'count';
    IF unit IS NOT NULL THEN
        quantity := amount.high;
        rest := ltrim(substring(amount.rest FROM '^[[:space:]-]*[[:alpha:]]+\.?(.*)$'), ' -');
    END IF;
END
$$;

COMMENT ON FUNCTION meal_planner.read_measured(text) IS
'an amount with a unit of mass or volume at the start of a text, and the rest; NULL when there is none';

-- One ingredient line.  The amount first, then the unit, then the food; what
-- says how the food is prepared ends up in the note.
CREATE FUNCTION meal_planner.read_ingredient(
    line text,
    OUT food text, OUT label text, OUT quantity_low numeric, OUT quantity_high numeric, OUT unit text,
    OUT each_quantity numeric, OUT each_unit text, OUT note text, OUT no_amount boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    amount    record;
    measured  record;
    words     text[];
    notes     text[] := '{}';
    body      text;
    inside    text;
    part      text;
    dimension text;
BEGIN
    SELECT * INTO amount FROM meal_planner.parse_quantity(btrim(regexp_replace(line, '[[:space:]]+', ' ', 'g')));
    quantity_low := amount.low;
    quantity_high := amount.high;
    body := amount.rest;

    IF quantity_low IS NOT NULL THEN
        -- "3 oz/85 g cheese" says it twice
        body := regexp_replace(body, '^([[:alpha:]]+\.?)\s*/\s*[0-9][0-9.,/ -]*\s*[[:alpha:]]+\.?\s', '\1 ');
        -- "1 (14 oz) can", "1 14-ounce can": what one of them weighs
        inside := substring(body FROM '^\(([^()]*)\)');
        SELECT * INTO measured FROM meal_planner.read_measured(coalesce(inside, body));
        IF measured.unit IS NOT NULL AND amount.each IS NULL THEN
            each_quantity := measured.quantity;
            each_unit := measured.unit;
            body := CASE WHEN inside IS NULL THEN measured.rest
                         ELSE substring(body FROM '^\([^()]*\)\s*(.*)$') END;
        END IF;

        -- size and heap words may stand before a unit
        words := string_to_array(body, ' ');
        WHILE cardinality(words) > 2
              AND lower(words[1]) = ANY (ARRAY['large', 'medium', 'small', 'big', 'good', 'heaped', 'heaping',
                                               'level', 'scant', 'generous', 'rounded', 'thick', 'thin', 'fat',
                                               'thin-cut', 'fresh', 'packed', 'whole'])
              AND (meal_planner.resolve_unit(words[2]) IS NOT NULL
                   OR lower(words[2]) IN ('or', 'large', 'medium', 'small')) LOOP
            notes := notes || lower(words[1]);
            words := words[2:];
        END LOOP;
        unit := CASE WHEN cardinality(words) > 2 THEN meal_planner.resolve_unit(words[1] || ' ' || words[2]) END;
        IF unit IS NOT NULL THEN
            words := words[3:];
        ELSIF cardinality(words) > 1 THEN
            unit := meal_planner.resolve_unit(rtrim(words[1], ','));
            IF unit IS NOT NULL THEN
                words := words[2:];
            END IF;
        END IF;
        body := array_to_string(words, ' ');
        SELECT u.dimension INTO dimension FROM meal_planner.unit u WHERE u.code = unit;

        IF amount.each IS NOT NULL AND unit IS NOT NULL AND dimension <> 'count' THEN
            -- "2 x 400 g cans": two cans of 400 g; "2 x 400 g": 800 g
            part := meal_planner.resolve_unit(words[1]);
            IF part IS NOT NULL AND cardinality(words) > 1 THEN
                each_quantity := amount.each;
                each_unit := unit;
                unit := part;
                body := array_to_string(words[2:], ' ');
            ELSE
                notes := notes || format('%s x %s %s', trim_scale(amount.low), trim_scale(amount.each), unit);
                quantity_low := amount.low * amount.each;
                quantity_high := amount.high * amount.each;
            END IF;
        ELSIF amount.each IS NOT NULL THEN
            quantity_low := amount.low * amount.each;
            quantity_high := amount.high * amount.each;
        END IF;

        -- "1 can (400 g) tomatoes" says what one weighs, "1 cup (240 ml)" only repeats it
        inside := substring(body FROM '^\(([^()]*)\)');
        IF inside IS NOT NULL THEN
            SELECT * INTO measured FROM meal_planner.read_measured(inside);
            IF dimension = 'count' AND measured.unit IS NOT NULL AND each_unit IS NULL THEN
                each_quantity := measured.quantity;
                each_unit := measured.unit;
            ELSE
                notes := notes || inside;
            END IF;
            body := substring(body FROM '^\([^()]*\)\s*(.*)$');
        END IF;
        body := regexp_replace(body, '^of ', '', 'i');
    END IF;

    -- parentheses, and what follows a comma, are notes
    FOR inside IN SELECT m[1] FROM regexp_matches(body, '\(([^()]*)\)', 'g') AS m LOOP
        notes := notes || btrim(inside);
    END LOOP;
    body := btrim(regexp_replace(regexp_replace(body, '\([^()]*\)', ' ', 'g'), '[[:space:]]+', ' ', 'g'), ' ,;.');
    label := btrim(split_part(split_part(body, ',', 1), ';', 1));
    part := btrim(substr(body, length(label) + 1), ' ,;');
    food := meal_planner.resolve_food(label);
    IF food IS NULL AND part <> '' THEN
        -- "boneless, skinless chicken thighs"
        food := meal_planner.resolve_food(label || ' ' || split_part(part, ',', 1));
        IF food IS NOT NULL THEN
            label := label || ' ' || split_part(part, ',', 1);
            part := btrim(substr(part, length(split_part(part, ',', 1)) + 1), ' ,;');
        END IF;
    END IF;
    IF part <> '' THEN
        notes := notes || part;
    END IF;

    -- "3 garlic cloves": the unit stands behind the food
    IF quantity_low IS NOT NULL AND unit IS NULL THEN
        words := string_to_array(label, ' ');
        IF cardinality(words) > 1 THEN
            SELECT u.code, f.name INTO dimension, part
              FROM meal_planner.unit u
              CROSS JOIN LATERAL meal_planner.resolve_food(array_to_string(words[:cardinality(words) - 1], ' ')) AS f (name)
             WHERE u.code = meal_planner.resolve_unit(words[cardinality(words)]) AND u.dimension = 'count'
               AND (each_unit IS NOT NULL
                    OR EXISTS (SELECT FROM meal_planner.food_measure m WHERE m.food = f.name AND m.unit = u.code));
            IF part IS NOT NULL AND dimension IS NOT NULL THEN
                unit := dimension;
                food := part;
                label := array_to_string(words[:cardinality(words) - 1], ' ');
            END IF;
        END IF;
    END IF;

    -- "butter for the pan", "oil or butter": only when the whole names nothing
    IF food IS NULL THEN
        part := substring(label FROM
            '(?i)^(.+?) (?:or|plus|for|to|as|at|in|with|without|cut|about|such|preferably|from|until|if|and more) ');
        IF part IS NOT NULL AND meal_planner.resolve_food(part) IS NOT NULL THEN
            notes := btrim(substr(label, length(part) + 1)) || notes;
            label := part;
            food := meal_planner.resolve_food(part);
        END IF;
    END IF;
    IF label = '' THEN
        label := coalesce(nullif(body, ''), btrim(line));
    END IF;
    note := nullif(array_to_string(notes, '; '), '');

    -- A line without an amount is fine when it says so or is a seasoning; any
    -- other is a gap in the recipe and is counted as one.
    no_amount := quantity_low IS NULL AND (
        line ~* '\m(to taste|as needed|as required|for (serving|garnish|frying|greasing|dusting|brushing|sprinkling|the (pan|tin|dish|bowl))|to (serve|garnish|season|finish)|optional|garnish|a few|a little|a bit|a couple)\M'
        OR NOT EXISTS (
            SELECT FROM regexp_split_to_table(label, '\s+(?:and|&)\s+', 'i') AS piece
             WHERE NOT EXISTS (SELECT FROM meal_planner.food f
                                WHERE f.name = meal_planner.resolve_food(piece)
                                  AND (f.aisle = 'Herbs & spices' OR NOT f.bought))));
END
$$;

COMMENT ON FUNCTION meal_planner.read_ingredient(text) IS
'what a line of a recipe says; food is NULL when no known food is named';

CREATE FUNCTION @extschema@.mp_parse_ingredient(line text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    IF line IS NULL OR btrim(line) = '' OR length(line) > 1000 THEN
        PERFORM meal_planner.refuse('MP400', 'line must have 1 to 1000 characters', 'Correct the argument.');
    END IF;
    SELECT * INTO r FROM meal_planner.read_ingredient($1);
    RETURN jsonb_build_object(
        'quantity', trim_scale(round(r.quantity_low, 6)),
        'quantity_max', CASE WHEN r.quantity_high <> r.quantity_low THEN trim_scale(round(r.quantity_high, 6)) END,
        'unit', r.unit,
        'food', coalesce(r.food, r.label),
        'note', r.note,
        'known_food', r.food IS NOT NULL,
        'no_amount', r.no_amount)
        || CASE WHEN r.each_unit IS NULL THEN '{}'
                ELSE jsonb_build_object('each', jsonb_build_object('quantity', trim_scale(round(r.each_quantity, 6)),
                                                                   'unit', r.each_unit)) END;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_parse_ingredient(text) IS
'reads an ingredient line: {quantity, quantity_max (end of a range), unit (code of meal_planner.unit, null: pieces or none), food, note, known_food, no_amount, each {quantity, unit}: what one of them weighs}. food is the canonical name when known_food, else the words of the line. MP400: empty or over 1000 characters';

-- Grams of a line's amount, or why they are unknown.
CREATE FUNCTION meal_planner.weigh(food text, quantity numeric, unit text, each_quantity numeric, each_unit text,
                                   note text, OUT grams numeric, OUT problem text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF food IS NULL THEN
        problem := 'unknown food';
    ELSIF quantity IS NULL THEN
        problem := 'no amount';
    ELSE
        -- What is printed on a can includes the liquid; the measure is drained.
        IF each_unit IS NOT NULL AND NOT (coalesce(note, '') ~* '\mdrained\M' AND EXISTS (
               SELECT FROM meal_planner.food_measure m WHERE m.food = $1 AND m.unit = $3)) THEN
            grams := meal_planner.to_grams($1, $2 * $4, $5);
        ELSE
            grams := meal_planner.to_grams($1, $2, $3);
        END IF;
        IF grams IS NULL THEN
            problem := format('no weight known for the unit %s', coalesce($3, 'piece'));
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.weigh(text, numeric, text, numeric, text, text) IS
'grams of an amount of a food, or the problem when the tables do not say';

CREATE FUNCTION meal_planner.check_text_list(list jsonb, field text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF list IS NULL OR list = 'null' THEN
        RETURN;
    END IF;
    IF jsonb_typeof(list) <> 'array' OR EXISTS (
        SELECT FROM jsonb_array_elements(list) AS e (value)
         WHERE jsonb_typeof(e.value) <> 'string' OR btrim(e.value #>> '{}') = '' OR length(e.value #>> '{}') > 5000) THEN
        PERFORM meal_planner.refuse('MP400', field || ' must be an array of texts', 'Correct the recipe.');
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.check_text_list(jsonb, text) IS 'MP400 unless absent or an array of non-empty texts';

-- A whole number or an amount, as JSON; NULL when it is neither.
CREATE FUNCTION meal_planner.json_number(value jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN jsonb_typeof($1) = 'number' THEN ($1 #>> '{}')::numeric END $$;
COMMENT ON FUNCTION meal_planner.json_number(jsonb) IS 'a JSON number as numeric, NULL for anything else';

CREATE FUNCTION meal_planner.json_uuid(value jsonb) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof($1) = 'string'
                 AND $1 #>> '{}' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                THEN ($1 #>> '{}')::uuid END
$$;
COMMENT ON FUNCTION meal_planner.json_uuid(jsonb) IS 'a JSON string as uuid, NULL for anything else';

CREATE FUNCTION meal_planner.check_ingredient(item jsonb, at int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text := format('ingredients[%s]', at);
BEGIN
    IF jsonb_typeof(item) = 'string' THEN
        IF btrim(item #>> '{}') = '' OR length(item #>> '{}') > 1000 THEN
            PERFORM meal_planner.refuse('MP400', field || ' must have 1 to 1000 characters', 'Correct the recipe.');
        END IF;
    ELSIF jsonb_typeof(item) = 'object' THEN
        IF jsonb_typeof(item -> 'food') IS DISTINCT FROM 'string' OR btrim(item ->> 'food') = ''
           OR length(item ->> 'food') > 500 THEN
            PERFORM meal_planner.refuse('MP400', field || '.food must be a text', 'Correct the recipe.');
        END IF;
        IF item -> 'quantity' IS NOT NULL AND item -> 'quantity' <> 'null'
           AND NOT coalesce(meal_planner.json_number(item -> 'quantity') BETWEEN 0.000001 AND 999999, false) THEN
            PERFORM meal_planner.refuse('MP400', field || '.quantity must be a number above 0', 'Leave it out when there is none.');
        END IF;
        IF item -> 'quantity_max' IS NOT NULL AND item -> 'quantity_max' <> 'null'
           AND NOT coalesce(meal_planner.json_number(item -> 'quantity_max')
                            BETWEEN meal_planner.json_number(item -> 'quantity') AND 999999, false) THEN
            PERFORM meal_planner.refuse('MP400', field || '.quantity_max must be a number not below quantity', 'Correct the recipe.');
        END IF;
        IF jsonb_typeof(item -> 'unit') NOT IN ('string', 'null') OR jsonb_typeof(item -> 'note') NOT IN ('string', 'null') THEN
            PERFORM meal_planner.refuse('MP400', field || '.unit and note must be texts', 'Correct the recipe.');
        END IF;
    ELSE
        PERFORM meal_planner.refuse('MP400', field || ' must be a line or an object', 'Correct the recipe.');
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.check_ingredient(jsonb, int) IS
'MP400 unless a line or {food, quantity, quantity_max, unit, note}';

CREATE FUNCTION meal_planner.check_recipe(recipe jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field  text;
    number numeric;
    item   record;
BEGIN
    IF jsonb_typeof(recipe) IS DISTINCT FROM 'object' THEN
        PERFORM meal_planner.refuse('MP400', 'recipe must be a JSON object', 'Send the recipe document.');
    END IF;
    IF jsonb_typeof(recipe -> 'name') IS DISTINCT FROM 'string' OR btrim(recipe ->> 'name') = ''
       OR length(recipe ->> 'name') > 128 THEN
        PERFORM meal_planner.refuse('MP400', 'name must have 1 to 128 characters', 'Correct the recipe.');
    END IF;
    number := meal_planner.json_number(recipe -> 'servings');
    IF number IS NULL OR number NOT BETWEEN 1 AND 100 OR number <> trunc(number) THEN
        PERFORM meal_planner.refuse('MP400', 'servings must be a whole number between 1 and 100',
                                    'Say how many portions the quantities make.');
    END IF;
    FOREACH field IN ARRAY ARRAY['prep_minutes', 'cook_minutes'] LOOP
        number := meal_planner.json_number(recipe -> field);
        IF recipe -> field IS NOT NULL AND recipe -> field <> 'null'
           AND (number IS NULL OR number NOT BETWEEN 0 AND 9999 OR number <> trunc(number)) THEN
            PERFORM meal_planner.refuse('MP400', field || ' must be a whole number between 0 and 9999', 'Correct the recipe.');
        END IF;
    END LOOP;
    FOREACH field IN ARRAY ARRAY['description', 'category', 'cuisine', 'source', 'source_url'] LOOP
        IF jsonb_typeof(recipe -> field) NOT IN ('string', 'null') OR length(recipe ->> field) > 2000 THEN
            PERFORM meal_planner.refuse('MP400', field || ' must be a text', 'Correct the recipe.');
        END IF;
    END LOOP;
    FOREACH field IN ARRAY ARRAY['steps', 'tags', 'allergens', 'meal_types'] LOOP
        PERFORM meal_planner.check_text_list(recipe -> field, field);
    END LOOP;
    IF EXISTS (SELECT FROM jsonb_path_query(recipe, '$.meal_types[*]') AS m (value)
                WHERE m.value #>> '{}' NOT IN ('breakfast', 'lunch', 'dinner', 'snack')) THEN
        PERFORM meal_planner.refuse('MP400', 'meal_types must be of breakfast, lunch, dinner, snack', 'Correct the recipe.');
    END IF;
    PERFORM meal_planner.check_allergens(recipe -> 'allergens', 'allergens');
    IF jsonb_typeof(recipe -> 'ingredients') IS DISTINCT FROM 'array'
       OR jsonb_array_length(recipe -> 'ingredients') NOT BETWEEN 1 AND 200 THEN
        PERFORM meal_planner.refuse('MP400', 'ingredients must be an array of 1 to 200 lines', 'Correct the recipe.');
    END IF;
    FOR item IN SELECT e.value, e.n FROM jsonb_array_elements(recipe -> 'ingredients') WITH ORDINALITY AS e (value, n) LOOP
        PERFORM meal_planner.check_ingredient(item.value, item.n::int - 1);
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.check_recipe(jsonb) IS 'MP400 naming the field unless the document is a recipe';

-- The lines of a recipe document, read and weighed.
CREATE FUNCTION meal_planner.read_ingredients(recipe jsonb)
RETURNS TABLE (line_no int, raw_text text, food text, label text, quantity_low numeric, quantity_high numeric,
               unit text, each_quantity numeric, each_unit text, note text, no_amount boolean,
               grams numeric, grams_high numeric, problem text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH item AS (
        SELECT e.n::int AS line_no, e.value,
               CASE WHEN jsonb_typeof(e.value) = 'string' THEN btrim(e.value #>> '{}')
                    ELSE btrim(concat_ws(' ', e.value ->> 'quantity'
                                         || CASE WHEN e.value ->> 'quantity_max' IS NULL THEN '' ELSE '-' END
                                         || coalesce(e.value ->> 'quantity_max', ''),
                                         e.value ->> 'unit', e.value ->> 'food')
                               || coalesce(', ' || (e.value ->> 'note'), '')) END AS raw_text
          FROM jsonb_array_elements($1 -> 'ingredients') WITH ORDINALITY AS e (value, n)),
    line AS (
        SELECT i.line_no, i.raw_text, r.*
          FROM item i CROSS JOIN LATERAL meal_planner.read_ingredient(i.raw_text) AS r
         WHERE jsonb_typeof(i.value) = 'string'
        UNION ALL
        -- a structured line says itself what is what; only names are looked up
        SELECT i.line_no, i.raw_text, meal_planner.resolve_food(i.value ->> 'food'), i.value ->> 'food',
               meal_planner.json_number(i.value -> 'quantity'),
               coalesce(meal_planner.json_number(i.value -> 'quantity_max'), meal_planner.json_number(i.value -> 'quantity')),
               coalesce(meal_planner.resolve_unit(i.value ->> 'unit'), i.value ->> 'unit'), NULL, NULL,
               i.value ->> 'note', i.value ->> 'quantity' IS NULL
          FROM item i
         WHERE jsonb_typeof(i.value) = 'object')
    SELECT l.line_no, l.raw_text, l.food, l.label, l.quantity_low, l.quantity_high, l.unit, l.each_quantity,
           l.each_unit, l.note, l.no_amount,
           CASE WHEN l.quantity_low = l.quantity_high THEN w.grams
                ELSE w.grams * (l.quantity_low + l.quantity_high) / (2 * l.quantity_high) END,
           w.grams, CASE WHEN NOT l.no_amount THEN w.problem END
      FROM line l
      CROSS JOIN LATERAL meal_planner.weigh(l.food, l.quantity_high, l.unit, l.each_quantity, l.each_unit, l.note) AS w
     ORDER BY l.line_no
$$;
COMMENT ON FUNCTION meal_planner.read_ingredients(jsonb) IS
'the ingredient lines of a recipe document with their foods and grams';

CREATE FUNCTION meal_planner.recipe_hash(recipe jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT encode(sha256(convert_to(($1 - 'id' - 'recipe_id')::text, 'UTF8')), 'hex') $$;
COMMENT ON FUNCTION meal_planner.recipe_hash(jsonb) IS 'hash of a recipe document without its id';

-- Writes a recipe into the tables; false when it is there already.
CREATE FUNCTION meal_planner.project_recipe(account text, recipe_id uuid, recipe jsonb, created_at timestamptz)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hash   text := meal_planner.recipe_hash(recipe);
    stored text;
BEGIN
    INSERT INTO meal_planner.recipe AS r
           (account, id, name, servings, description, category, cuisine, meal_types, tags, allergens, prep_minutes,
            cook_minutes, steps, source, source_url, status, content_hash, created_at)
    VALUES ($1, $2, btrim($3 ->> 'name'), ($3 ->> 'servings')::numeric::int, $3 ->> 'description', $3 ->> 'category',
            $3 ->> 'cuisine',
            coalesce(meal_planner.text_list($3 -> 'meal_types'),
                     CASE WHEN lower($3 ->> 'category') IN ('breakfast', 'snack')
                          THEN ARRAY[lower($3 ->> 'category')] ELSE ARRAY['lunch', 'dinner'] END),
            ARRAY(SELECT DISTINCT lower(t) FROM unnest(meal_planner.text_list($3 -> 'tags')) AS t ORDER BY 1),
            CASE WHEN jsonb_typeof($3 -> 'allergens') = 'array' THEN
                meal_planner.allergen_set($3 -> 'allergens') END,
            ($3 ->> 'prep_minutes')::numeric::int, ($3 ->> 'cook_minutes')::numeric::int,
            coalesce(meal_planner.text_list($3 -> 'steps'), '{}'),
            coalesce($3 ->> 'source', 'manual'), $3 ->> 'source_url', 'active', hash, $4)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.content_hash INTO stored FROM meal_planner.recipe r WHERE r.account = $1 AND r.id = $2;
        IF stored = hash THEN
            RETURN false;
        END IF;
        PERFORM meal_planner.refuse('MP409', format('recipe %s exists with other content', $2),
                                    'Send a change as RecipeUpdated, or a new recipe with a new id.');
    END IF;
    INSERT INTO meal_planner.recipe_ingredient
           (account, recipe_id, line_no, raw_text, food, label, quantity_low, quantity_high, unit, each_quantity,
            each_unit, note, no_amount, grams, grams_high, problem)
    SELECT $1, $2, l.line_no, l.raw_text, l.food, l.label, l.quantity_low, l.quantity_high, l.unit, l.each_quantity,
           l.each_unit, l.note, l.no_amount, l.grams, l.grams_high, l.problem
      FROM meal_planner.read_ingredients($3) AS l;
    RETURN true;
END
$$;
COMMENT ON FUNCTION meal_planner.project_recipe(text, uuid, jsonb, timestamptz) IS
'writes a checked recipe document into the tables; false: it was there; MP409: other content under this id';

CREATE FUNCTION @extschema@.mp_create_recipe(recipe jsonb, account text DEFAULT 'local') RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant    text := coalesce(account, 'local');
    recipe_id uuid;
    stored    text;
    now       timestamptz := meal_planner.clock();
BEGIN
    PERFORM meal_planner.check_recipe(recipe);
    recipe_id := gen_random_uuid();
    IF coalesce(recipe ->> 'id', recipe ->> 'recipe_id') IS NOT NULL THEN
        recipe_id := meal_planner.json_uuid(coalesce(recipe -> 'id', recipe -> 'recipe_id'));
        IF recipe_id IS NULL THEN
            PERFORM meal_planner.refuse('MP400', 'id must be a uuid', 'Leave it out to get a new one.');
        END IF;
        SELECT r.content_hash INTO stored FROM meal_planner.recipe r
         WHERE r.account = tenant AND r.id = recipe_id;
        IF stored = meal_planner.recipe_hash(recipe) THEN
            RETURN recipe_id;
        ELSIF stored IS NOT NULL THEN
            PERFORM meal_planner.refuse('MP409', format('recipe %s exists with other content', recipe_id),
                                        'Send a new id, or none.');
        END IF;
    END IF;
    PERFORM @extschema@.mp_emit_event(
        detail_type => 'RecipeCreated',
        detail => jsonb_build_object('recipe_id', recipe_id, 'name', btrim(recipe ->> 'name'),
                                     'source', coalesce(recipe ->> 'source', 'manual'), 'created_at', now,
                                     'recipe', recipe - 'id' - 'recipe_id'),
        account => tenant,
        stream => 'recipe:' || recipe_id,
        expected_version => 0);
    RETURN recipe_id;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_create_recipe(jsonb, text) IS
'emits RecipeCreated and returns the recipe''s id. recipe: {name, servings 1..100, ingredients [line or {food, quantity, quantity_max, unit, note}], steps [text], meal_types of breakfast|lunch|dinner|snack (default: by category, else lunch and dinner), tags, allergens (left out: unknown), category, cuisine, prep_minutes, cook_minutes, source, source_url, description, id (uuid, default a new one)}. The same document with the same id again changes nothing. MP400 naming the field, MP409: other content under this id';
