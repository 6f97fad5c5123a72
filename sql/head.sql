\echo Use "CREATE EXTENSION meal_planner" to load this file. \quit

-- Nothing below may be resolved through the path of whoever installs.
SET LOCAL search_path TO pg_catalog, pg_temp;

