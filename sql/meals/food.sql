-- Foods, units and nutrients: reference data, the same for every account.
--
-- The starter data of the next parts goes in with builtin = true, so that a
-- dump carries only the rows that people added.

CREATE TABLE meal_planner.unit (
    code      text    PRIMARY KEY,
    dimension text    NOT NULL CHECK (dimension IN ('mass', 'volume', 'count')),
    to_base   numeric NOT NULL CHECK (to_base > 0),
    system    text,
    name      text    NOT NULL,
    plural    text,
    builtin   boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE meal_planner.unit IS
'units of mass (to_base in g), volume (to_base in ml) and count (what one weighs depends on the food: food_measure)';

CREATE TABLE meal_planner.unit_alias (
    alias   text    PRIMARY KEY,
    unit    text    NOT NULL REFERENCES meal_planner.unit (code),
    builtin boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE meal_planner.unit_alias IS
'spellings of units; looked up as written first (T is a tablespoon, t a teaspoon), then in lower case';

CREATE TABLE meal_planner.aisle (
    name       text    PRIMARY KEY,
    sort_order int     NOT NULL,
    builtin    boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE meal_planner.aisle IS 'where a shop keeps a food, in the order of a walk through it';

CREATE TABLE meal_planner.nutrient (
    code        text    PRIMARY KEY,
    unit        text    NOT NULL,
    name        text    NOT NULL,
    usda_number int,
    builtin     boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE meal_planner.nutrient IS 'nutrients and the unit their amounts are in; usda_number is the number of USDA SR';

CREATE TABLE meal_planner.food (
    name             text    PRIMARY KEY CHECK (name = lower(name) AND name = btrim(name) AND name <> ''),
    plural           text,
    aisle            text    REFERENCES meal_planner.aisle (name),
    state            text    CHECK (state IN ('raw', 'cooked', 'dry', 'prepared')),
    grams_per_ml     numeric CHECK (grams_per_ml > 0),
    usda_ndb_no      int,
    usda_description text,
    liquid           boolean NOT NULL DEFAULT false,
    bought           boolean NOT NULL DEFAULT true,
    builtin          boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE meal_planner.food IS
'foods by canonical lower-case English singular; a liquid is shown in ml, what is not bought (water) stays off the shopping list';

CREATE INDEX food_plural ON meal_planner.food (plural);

CREATE TABLE meal_planner.food_alias (
    alias   text    PRIMARY KEY CHECK (alias = lower(alias)),
    food    text    NOT NULL REFERENCES meal_planner.food (name),
    builtin boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE meal_planner.food_alias IS 'other lower-case names of a food';

CREATE TABLE meal_planner.food_measure (
    food    text    NOT NULL REFERENCES meal_planner.food (name),
    unit    text    NOT NULL REFERENCES meal_planner.unit (code),
    grams   numeric NOT NULL CHECK (grams > 0),
    builtin boolean NOT NULL DEFAULT true,
    PRIMARY KEY (food, unit)
);
COMMENT ON TABLE meal_planner.food_measure IS 'what one unit of a food weighs in grams; the unit piece is one whole of medium size';

CREATE TABLE meal_planner.food_nutrient (
    food     text    NOT NULL REFERENCES meal_planner.food (name),
    nutrient text    NOT NULL REFERENCES meal_planner.nutrient (code),
    per_100g numeric NOT NULL CHECK (per_100g >= 0),
    builtin  boolean NOT NULL DEFAULT true,
    PRIMARY KEY (food, nutrient)
);
COMMENT ON TABLE meal_planner.food_nutrient IS 'amount of a nutrient in 100 g; no row means unknown, which is not zero';

SELECT pg_extension_config_dump('meal_planner.unit', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.unit_alias', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.aisle', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.nutrient', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.food', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.food_alias', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.food_measure', 'WHERE NOT builtin');
SELECT pg_extension_config_dump('meal_planner.food_nutrient', 'WHERE NOT builtin');

-- Every error of the domain has this shape: the code is in the message too,
-- because some clients drop the SQLSTATE.
CREATE FUNCTION meal_planner.refuse(code text, message text, hint text, detail text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF detail IS NULL THEN
        RAISE EXCEPTION '%: %', code, message USING ERRCODE = code, HINT = 'retry=no. ' || hint;
    END IF;
    RAISE EXCEPTION '%: %', code, message USING ERRCODE = code, HINT = 'retry=no. ' || hint, DETAIL = detail;
END
$$;
COMMENT ON FUNCTION meal_planner.refuse(text, text, text, text) IS 'raises an error of the domain that a retry does not cure';

-- The code of a unit as written, or NULL.  plpgsql keeps its plans; a function
-- in plain SQL would be planned again for every word.
CREATE FUNCTION meal_planner.resolve_unit(written text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    spelling text;
    found    text;
BEGIN
    -- as written first: "T" must not become "t"
    FOREACH spelling IN ARRAY ARRAY[written, lower(rtrim(written, '.'))] LOOP
        SELECT u.code INTO found FROM meal_planner.unit u WHERE u.code = spelling;
        IF found IS NULL THEN
            SELECT a.unit INTO found FROM meal_planner.unit_alias a WHERE a.alias = spelling;
        END IF;
        EXIT WHEN found IS NOT NULL;
    END LOOP;
    RETURN found;
END
$$;
COMMENT ON FUNCTION meal_planner.resolve_unit(text) IS 'code of a unit as written in a recipe, NULL when it is none';

-- A food by exactly this name: canonical, alias or plural, or the last word in the singular.
CREATE FUNCTION meal_planner.food_named(written text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    spelling text;
    found    text;
BEGIN
    FOREACH spelling IN ARRAY ARRAY[written, regexp_replace(written, 'ies$', 'y'), regexp_replace(written, 'ves$', 'f'),
                                    regexp_replace(written, '(o|s|x|ch|sh)es$', '\1'),
                                    regexp_replace(written, '([^s])s$', '\1')] LOOP
        SELECT f.name INTO found FROM meal_planner.food f WHERE f.name = spelling;
        IF found IS NULL THEN
            SELECT a.food INTO found FROM meal_planner.food_alias a WHERE a.alias = spelling;
        END IF;
        IF found IS NULL THEN
            SELECT f.name INTO found FROM meal_planner.food f WHERE f.plural = spelling ORDER BY f.name LIMIT 1;
        END IF;
        EXIT WHEN found IS NOT NULL;
    END LOOP;
    RETURN found;
END
$$;
COMMENT ON FUNCTION meal_planner.food_named(text) IS 'food of exactly this lower-case name, singular or plural, NULL when there is none';

-- The food a text names, or NULL.  Words are dropped only when they are known
-- to say how a food is cut or how good it is; nothing is matched by a part of a
-- word, so licorice is no rice and pineapple no apple.
CREATE FUNCTION meal_planner.resolve_food(written text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- no word that changes the food: not dried, cooked, canned, ground, hot, baby, whole, white
    plain constant text[] := ARRAY[
        'fresh', 'freshly', 'large', 'medium', 'medium-sized', 'small', 'big', 'extra-large', 'jumbo', 'ripe', 'firm',
        'very', 'organic', 'free-range', 'good', 'good-quality', 'quality', 'best', 'plain', 'finely', 'coarsely',
        'roughly', 'thinly', 'thickly', 'lightly', 'chopped', 'diced', 'minced', 'sliced', 'grated', 'shredded',
        'crushed', 'peeled', 'pitted', 'seeded', 'deseeded', 'halved', 'quartered', 'cubed', 'torn', 'trimmed',
        'washed', 'rinsed', 'drained', 'packed', 'sifted', 'softened', 'melted', 'cold', 'warm', 'chilled',
        'boneless', 'skinless', 'thick', 'thin', 'frozen', 'thawed', 'heaped', 'level', 'of', 'the',
        'some', 'extra', 'additional', 'more', 'tender', 'young', 'crumbled', 'beaten', 'cut', 'stemmed',
        'lukewarm', 'boiling', 'room-temperature', 'homemade', 'store-bought', 'mixed', 'soft', 'firmly', 'loosely',
        'unbleached', 'defrosted', 'flaky'];
    name   text := btrim(regexp_replace(regexp_replace(lower(written), '[[:space:]*]+', ' ', 'g'),
                                        '^[ ,.;:-]+|[ ,.;:-]+$', '', 'g'));
    words  text[];
    found  text;
BEGIN
    IF name = '' OR length(name) > 200 THEN
        RETURN NULL;
    END IF;
    found := meal_planner.food_named(name);
    IF found IS NOT NULL THEN
        RETURN found;
    END IF;
    words := string_to_array(name, ' ');
    -- from the front one at a time: "large red onion" must find the red onion
    WHILE cardinality(words) > 1 AND words[1] = ANY (plain) LOOP
        words := words[2:];
        found := meal_planner.food_named(array_to_string(words, ' '));
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
    END LOOP;
    WHILE cardinality(words) > 1 AND words[cardinality(words)] = ANY (plain) LOOP
        words := words[:cardinality(words) - 1];
        found := meal_planner.food_named(array_to_string(words, ' '));
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
    END LOOP;
    SELECT array_agg(w ORDER BY n) INTO words
      FROM unnest(words) WITH ORDINALITY AS t (w, n)
     WHERE w <> ALL (plain);
    found := meal_planner.food_named(array_to_string(words, ' '));
    IF found IS NULL AND name LIKE '%-%' THEN
        RETURN meal_planner.resolve_food(replace(name, '-', ' '));
    END IF;
    RETURN found;
END
$$;
COMMENT ON FUNCTION meal_planner.resolve_food(text) IS
'canonical name of the food a text names, or NULL when it is not known for certain';

-- Grams of an amount, or NULL when nothing in the tables says it.  Mass is
-- exact.  Volume needs a measure of this food (another volume unit will do) or
-- its density.  Count needs the measure of this food and unit.
CREATE FUNCTION meal_planner.to_grams(food text, quantity numeric, unit text) RETURNS numeric
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked  meal_planner.unit;
    weight numeric;
BEGIN
    SELECT u.* INTO asked FROM meal_planner.unit u WHERE u.code = coalesce($3, 'piece');
    IF asked.dimension = 'mass' THEN
        RETURN quantity * asked.to_base;
    END IF;
    SELECT m.grams INTO weight FROM meal_planner.food_measure m WHERE m.food = $1 AND m.unit = asked.code;
    IF weight IS NULL AND asked.dimension = 'volume' THEN
        -- another measured volume will do; the largest has the smallest rounding error
        SELECT asked.to_base * m.grams / v.to_base INTO weight
          FROM meal_planner.food_measure m
          JOIN meal_planner.unit v ON v.code = m.unit
         WHERE m.food = $1 AND v.dimension = 'volume'
         ORDER BY v.to_base DESC, v.code
         LIMIT 1;
        IF weight IS NULL THEN
            SELECT asked.to_base * f.grams_per_ml INTO weight FROM meal_planner.food f WHERE f.name = $1;
        END IF;
    END IF;
    RETURN quantity * weight;
END
$$;
COMMENT ON FUNCTION meal_planner.to_grams(text, numeric, text) IS
'grams of a quantity of a food in a unit (NULL: pieces); NULL when the tables do not say, never a guess';

CREATE FUNCTION meal_planner.text_list(list jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof($1) = 'array' THEN
        ARRAY(SELECT btrim(e.value) FROM jsonb_array_elements_text($1) WITH ORDINALITY AS e (value, n) ORDER BY e.n) END
$$;
COMMENT ON FUNCTION meal_planner.text_list(jsonb) IS 'a JSON array of texts as text[], NULL for anything else';

-- The allergens that recipes declare and plans exclude: one spelling each, so
-- that no exclusion passes by a synonym.
CREATE FUNCTION meal_planner.allergens_named(written text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.allergens
      FROM (VALUES ('gluten', ARRAY['gluten']), ('wheat', ARRAY['gluten']), ('cereal', ARRAY['gluten']),
                   ('milk', ARRAY['milk']), ('dairy', ARRAY['milk']), ('lactose', ARRAY['milk']),
                   ('egg', ARRAY['egg']), ('fish', ARRAY['fish']),
                   ('crustacean', ARRAY['crustacean']), ('mollusc', ARRAY['mollusc']), ('mollusk', ARRAY['mollusc']),
                   -- words that mean several of them: all of them, on both sides
                   ('shellfish', ARRAY['crustacean', 'mollusc']), ('seafood', ARRAY['crustacean', 'mollusc', 'fish']),
                   ('nut', ARRAY['tree nut', 'peanut']),
                   ('tree nut', ARRAY['tree nut']), ('treenut', ARRAY['tree nut']),
                   ('peanut', ARRAY['peanut']), ('groundnut', ARRAY['peanut']),
                   ('soy', ARRAY['soy']), ('soya', ARRAY['soy']), ('soybean', ARRAY['soy']),
                   ('celery', ARRAY['celery']), ('mustard', ARRAY['mustard']), ('sesame', ARRAY['sesame']),
                   ('sulphite', ARRAY['sulphite']), ('sulfite', ARRAY['sulphite']), ('sulphur dioxide', ARRAY['sulphite']),
                   ('lupin', ARRAY['lupin'])) AS a (name, allergens)
     WHERE a.name = regexp_replace(lower(btrim(regexp_replace($1, '[_[:space:]-]+', ' ', 'g'))), '([^s])s$', '\1')
$$;
COMMENT ON FUNCTION meal_planner.allergens_named(text) IS
'which of the 14 allergens of EU law a word means, NULL when none';

CREATE FUNCTION meal_planner.allergen_set(list jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT DISTINCT a
                   FROM unnest(meal_planner.text_list($1)) AS t (word)
                  CROSS JOIN LATERAL unnest(meal_planner.allergens_named(t.word)) AS a
                  ORDER BY a)
$$;
COMMENT ON FUNCTION meal_planner.allergen_set(jsonb) IS 'the allergens that a JSON list of words means';

CREATE FUNCTION meal_planner.check_allergens(list jsonb, field text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    word text;
BEGIN
    -- a word that means nothing would exclude nothing
    FOREACH word IN ARRAY coalesce(meal_planner.text_list(list), '{}') LOOP
        IF meal_planner.allergens_named(word) IS NULL THEN
            PERFORM meal_planner.refuse('MP400', format('%s has "%s", which is not a known allergen', field, word),
                'Known: gluten, crustacean, egg, fish, peanut, soy, milk, tree nut, celery, mustard, sesame, sulphite, lupin, mollusc.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.check_allergens(jsonb, text) IS 'MP400 when a word of the list is no allergen';
