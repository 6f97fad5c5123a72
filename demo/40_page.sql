-- Prints the newest plan and its shopping list as one HTML page: two sheets of
-- A4, everything inline, readable in black and white.
--   psql -X -f demo/40_page.sql > week.html
\set ON_ERROR_STOP on
\set QUIET on
\encoding UTF8
\pset format unaligned
\pset tuples_only on

SELECT p.id AS plan_id FROM meal_planner.meal_plan p WHERE p.account = 'local' ORDER BY p.created_at DESC, p.id LIMIT 1 \gset
SELECT coalesce((SELECT l.id FROM meal_planner.shopping_list l
                  WHERE l.account = 'local' AND l.meal_plan_id = :'plan_id'
                  ORDER BY l.created_at DESC, l.id LIMIT 1),
                mp_create_shopping_list(:'plan_id')) AS list_id \gset

-- Text of others never becomes markup.
CREATE FUNCTION pg_temp.esc(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT replace(replace(replace(replace(replace(t, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;')
$$;

-- Quarters as a cook writes them.
CREATE FUNCTION pg_temp.portion(n numeric) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN mod(n * 4, 1) <> 0 THEN trim_scale(round(n, 2))::text
                ELSE CASE WHEN trunc(n) = 0 THEN '' ELSE trunc(n)::text END
                     || CASE mod(n * 4, 4)::int WHEN 1 THEN '&frac14;' WHEN 2 THEN '&frac12;' WHEN 3 THEN '&frac34;' ELSE '' END END
$$;

-- "1 1/4 tsp" of the list, set properly.
CREATE FUNCTION pg_temp.amount(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(regexp_replace(pg_temp.esc(t), '(\d) (?=1/4|1/2|3/4)', '\1', 'g'), '([13])/([24])', '&frac\1\2;', 'g')
$$;

-- One nutrient of one day: a bar from 0 to 130 % of the goal, the band of the
-- tolerance behind it and a tick at the goal.
CREATE FUNCTION pg_temp.bar(y int, label text, actual numeric, target numeric, tolerance numeric, unit text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT format('<text x="0" y="%s" class="l">%s</text>', y + 9, label)
        || CASE WHEN target > 0 THEN
               format('<rect x="34" y="%s" width="91" height="10" class="t"/>'
                      || '<rect x="%s" y="%s" width="%s" height="10" class="z"/>'
                      || '<rect x="34" y="%s" width="%s" height="5" class="%s"/>'
                      || '<line x1="104" x2="104" y1="%s" y2="%s" class="g"/>',
                      y + 1, round(34 + 70 * (1 - tolerance), 1), y + 1, round(140 * tolerance, 1),
                      y + 3.5, round(least(70 * actual / target, 91), 1),
                      CASE WHEN abs(actual / target - 1) <= tolerance THEN 'b' ELSE 'b off' END,
                      y, y + 12)
           ELSE '' END
        || format('<text x="158" y="%s" class="v">%s%s</text>', y + 9, round(actual), unit)
$$;

WITH source AS (
    SELECT mp_meal_plan(:'plan_id') AS p, mp_shopping_list(:'list_id') AS l),
plan AS (
    SELECT p, l, (p ->> 'people')::int AS people, (p ->> 'start_date')::date AS first, (p ->> 'end_date')::date AS last,
           (SELECT (m.criteria ->> 'tolerance')::numeric FROM meal_planner.meal_plan m
             WHERE m.account = 'local' AND m.id = :'plan_id') AS tolerance
      FROM source),
meal_type AS (
    SELECT t.name, t.n
      FROM unnest(ARRAY['breakfast', 'lunch', 'dinner', 'snack']) WITH ORDINALITY AS t (name, n)
     WHERE EXISTS (SELECT FROM plan, jsonb_path_query(p, '$.days[*].meals[*].meal_type') AS m (value)
                    WHERE m.value #>> '{}' = t.name)),
day AS (
    SELECT d.value AS d, d.n, (d.value ->> 'date')::date AS date, tolerance
      FROM plan CROSS JOIN jsonb_array_elements(p -> 'days') WITH ORDINALITY AS d (value, n)),
cell AS (
    SELECT d.n, t.n AS m,
           coalesce((SELECT format('<td><div class="dish">%s</div><div class="portion">%s &middot; %s kcal%s</div></td>',
                                   pg_temp.esc(m.value ->> 'name'),
                                   pg_temp.portion((m.value ->> 'servings')::numeric)
                                   || CASE WHEN (m.value ->> 'servings')::numeric <= 1 THEN ' portion' ELSE ' portions' END,
                                   m.value ->> 'kcal',
                                   CASE WHEN (m.value ->> 'locked')::boolean THEN ' &middot; fixed' ELSE '' END)
                       FROM jsonb_array_elements(d.d -> 'meals') AS m (value) WHERE m.value ->> 'meal_type' = t.name),
                    '<td class="none">&ndash;</td>') AS html
      FROM day d CROSS JOIN meal_type t),
row AS (
    SELECT d.n, format('<tr><th scope="row"><div class="weekday">%s</div><div class="date">%s</div></th>%s'
                       || '<td class="figures"><svg viewBox="0 0 159 66" role="img" aria-label="%s">%s</svg></td></tr>',
                       trim(to_char(d.date, 'Day')), trim(to_char(d.date, 'FMDD Month')),
                       (SELECT string_agg(c.html, '' ORDER BY c.m) FROM cell c WHERE c.n = d.n),
                       pg_temp.esc(format('%s kcal, %s g protein, %s g fat, %s g carbohydrate', d.d #>> '{totals,kcal}',
                                          d.d #>> '{totals,protein}', d.d #>> '{totals,fat}', d.d #>> '{totals,carbs}')),
                       (SELECT string_agg(pg_temp.bar(x.y, x.label, (d.d -> 'totals' ->> x.code)::numeric,
                                                      (d.d -> 'targets' ->> x.code)::numeric, d.tolerance, x.unit), '' ORDER BY x.y)
                          FROM (VALUES (0, 'Energy', 'kcal', ''), (17, 'Protein', 'protein', ' g'), (34, 'Fat', 'fat', ' g'),
                                       (51, 'Carbs', 'carbs', ' g')) AS x (y, label, code, unit))) AS html
      FROM day d),
aisle AS (
    SELECT a.n, format('<section><h3>%s</h3><ul>%s</ul></section>', pg_temp.esc(a.value ->> 'aisle'),
                       (SELECT string_agg(format('<li><span class="box"></span><span class="food">%s</span><span class="amount">%s</span></li>',
                                                 pg_temp.esc(i.value ->> 'label'), pg_temp.amount(i.value ->> 'display')), '' ORDER BY i.n)
                          FROM jsonb_array_elements(a.value -> 'items') WITH ORDINALITY AS i (value, n))) AS html
      FROM plan CROSS JOIN jsonb_array_elements(l -> 'aisles') WITH ORDINALITY AS a (value, n)),
words AS (
    SELECT CASE WHEN date_trunc('month', first) = date_trunc('month', last) THEN trim(to_char(first, 'FMDD'))
                ELSE trim(to_char(first, 'FMDD Month')) END || ' &ndash; ' || trim(to_char(last, 'FMDD FMMonth YYYY')) AS dates,
           CASE people WHEN 1 THEN 'one person' ELSE people || ' people' END AS people,
           (SELECT string_agg(g, ' &middot; ')
              FROM (SELECT (p #>> '{goals,daily,kcal}') || ' kcal' AS g
                    UNION ALL SELECT (p #>> '{goals,daily,protein}') || ' g protein'
                    UNION ALL SELECT (p #>> '{goals,daily,fat}') || ' g fat'
                    UNION ALL SELECT (p #>> '{goals,daily,carbs}') || ' g carbs') AS x) AS goal,
           round(100 * tolerance) AS percent,
           (SELECT count(*) FROM day WHERE (d ->> 'within_tolerance')::boolean) AS good, (SELECT count(*) FROM day) AS days
      FROM plan)
SELECT '<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Meals of ' || dates || '</title>
<style>
@page { size: A4 portrait; margin: 11mm 12mm; }
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0 auto; max-width: 186mm; color: #1b1b1b; background: #fff;
       font: 9.5pt/1.3 "Source Sans 3", "Segoe UI", "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
header { display: flex; justify-content: space-between; align-items: flex-end; gap: 8mm;
         border-bottom: 1.6pt solid #1b1b1b; padding-bottom: 2.2mm; margin-bottom: 1mm; }
h1, h2 { font-family: "Source Serif 4", Charter, Georgia, "Liberation Serif", "Times New Roman", serif; font-weight: 600; margin: 0;
         letter-spacing: -.01em; }
h1, h2 { font-size: 20pt; line-height: 1.05; white-space: nowrap; }
header p { margin: 0; text-align: right; white-space: nowrap; font-size: 8pt; line-height: 1.35; color: #444; }
header p b { color: #1b1b1b; font-weight: 600; }
table { width: 100%; border-collapse: collapse; table-layout: fixed; }
thead th { font-size: 7.5pt; font-weight: 600; text-transform: uppercase; letter-spacing: .09em; text-align: left; color: #444;
           padding: 2.2mm 3mm 1.4mm 0; }
tbody tr { border-top: .5pt solid #8a8a8a; break-inside: avoid; }
tbody tr:last-child { border-bottom: .5pt solid #8a8a8a; }
tbody th { text-align: left; vertical-align: top; padding: 2.6mm 2mm 2mm 0; font-weight: 400; }
tbody td { vertical-align: top; padding: 2.8mm 3.5mm 2mm 0; height: 33.5mm; }
.weekday { font: 600 13pt/1.1 "Source Serif 4", Charter, Georgia, "Liberation Serif", "Times New Roman", serif; }
.date { font-size: 8pt; color: #555; margin-top: .6mm; }
.dish { font-weight: 600; font-size: 11pt; line-height: 1.22; hyphens: auto; overflow-wrap: anywhere; }
.portion { font-size: 8.5pt; color: #444; margin-top: 1.2mm; }
.none { color: #777; }
.figures { padding-right: 0; }
svg { display: block; width: 100%; }
svg text { font-size: 8.5px; fill: #1b1b1b; }
.l { fill: #444; } .v { text-anchor: end; }
.t { fill: #ededed; } .z { fill: #cfcfcf; } .b { fill: #1f4d3a; } .off { fill: #fff; stroke: #1b1b1b; stroke-width: .8; }
.g { stroke: #1b1b1b; stroke-width: 1; }
.note { font-size: 7.5pt; color: #555; margin: 2mm 0 0; }
.list { break-before: page; }
.aisles { columns: 3; column-gap: 7mm; margin-top: 3mm; }
section { margin: 0 0 3.4mm; break-inside: avoid-column; }
h3 { margin: 0 0 .8mm; padding-bottom: .5mm; font-size: 7.5pt; font-weight: 600; text-transform: uppercase; letter-spacing: .07em;
     border-bottom: .5pt solid #8a8a8a; break-after: avoid; }
ul { list-style: none; margin: 0; padding: 0; }
li { display: flex; align-items: baseline; gap: 1.8mm; padding: .48mm 0; break-inside: avoid; font-size: 9pt; line-height: 1.2; }
.box { flex: none; width: 2.7mm; height: 2.7mm; border: .7pt solid #1b1b1b; border-radius: .4mm; transform: translateY(.3mm); }
.food { flex: 1; }
.amount { flex: none; max-width: 60%; text-align: right; color: #333; font-variant-numeric: tabular-nums; }
@media screen { body { padding: 12mm 0; } .list { margin-top: 16mm; } }
@media screen and (max-width: 186mm) { body { padding: 4mm; } .aisles { columns: 1; } }
</style>
</head>
<body>
<main>
<header><h1>' || dates || '</h1><p>For <b>' || people || '</b>; a day for each of them:<br><b>' || coalesce(goal, 'no goal') || '</b></p></header>
<table>
<colgroup><col style="width: 28mm">' || (SELECT string_agg('<col>', '') FROM meal_type) || '<col style="width: 47mm"></colgroup>
<thead><tr><th></th>' || (SELECT string_agg('<th scope="col">' || initcap(name) || '</th>', '' ORDER BY n) FROM meal_type)
    || '<th scope="col">The day</th></tr></thead>
<tbody>
' || (SELECT string_agg(html, E'\n' ORDER BY n) FROM row) || '
</tbody>
</table>
<p class="note">Portions are for each person. The tick in a bar is the goal, the darker band ' || percent || '&thinsp;% to either side of it; '
    || good || ' of ' || days || ' days are inside it. An open bar is outside.</p>
</main>
<div class="list">
<header><h2>Shopping</h2><p>For <b>' || people || '</b><br>' || dates || '</p></header>
<div class="aisles">
' || (SELECT string_agg(html, E'\n' ORDER BY n) FROM aisle) || '
</div>
</div>
</body>
</html>'
  FROM words;
