/*
 * The amount of an ingredient line, as SQL sees it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "core/quantity.h"

PG_FUNCTION_INFO_V1(mp_parse_quantity);

/* A third becomes numeric only here, with all the digits numeric division gives. */
static Datum
rational_to_numeric(MpRational value)
{
	if (value.den == 1)
		return NumericGetDatum(int64_to_numeric(value.num));
	return DirectFunctionCall2(numeric_div,
							   NumericGetDatum(int64_to_numeric(value.num)),
							   NumericGetDatum(int64_to_numeric(value.den)));
}

/*
 * parse_quantity(line text, OUT low numeric, OUT high numeric, OUT each numeric,
 * OUT approximate boolean, OUT rest text)
 */
Datum
mp_parse_quantity(PG_FUNCTION_ARGS)
{
	text	   *line = PG_GETARG_TEXT_PP(0);
	const char *bytes = VARDATA_ANY(line);
	size_t		len = VARSIZE_ANY_EXHDR(line);
	TupleDesc	row;
	MpQuantity	q;
	Datum		values[5];
	bool		nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &row) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	mp_quantity_parse(bytes, len, &q);

	values[0] = q.present ? rational_to_numeric(q.low) : (Datum) 0;
	nulls[0] = !q.present;
	values[1] = q.present ? rational_to_numeric(q.high) : (Datum) 0;
	nulls[1] = !q.present;
	values[2] = q.has_each ? rational_to_numeric(q.each) : (Datum) 0;
	nulls[2] = !q.has_each;
	values[3] = BoolGetDatum(q.approximate);
	values[4] = PointerGetDatum(cstring_to_text_with_len(bytes + q.rest, (int) (len - q.rest)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(row, values, nulls)));
}
