/*
 * event_envelope.c
 *		The envelope: an event as it is sent on the wire.
 *
 * It is written straight in jsonb's stored form.  The names of its members are
 * always the same and their order is known, and the detail is jsonb already:
 * building it value by value would sort and copy what needs neither, which is
 * most of the cost of reading a thousand events.  The form is that of
 * utils/jsonb.h: a header, one JEntry for every name, one for every value, then
 * names and values themselves; a nested container starts at a multiple of four,
 * and its padding counts as part of it.
 *
 * Who only wants its text gets that in one step, without the jsonb between.
 */
#include "bus/event_json.h"

#include "bus/json_text.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* The members, in jsonb's order: by length, then by bytes. */
enum
{
	MEMBER_ID,
	MEMBER_TIME,
	MEMBER_DETAIL,
	MEMBER_REGION,
	MEMBER_SOURCE,
	MEMBER_ACCOUNT,
	MEMBER_VERSION,
	MEMBER_RESOURCES,
	MEMBER_DETAIL_TYPE,
	MEMBER_REPLAY_NAME,			/* only of a replay */
	MEMBERS
};

typedef struct Member
{
	const char *name;
	size_t		len;
	const char *printed;
	size_t		printed_len;
} Member;

#define MEMBER(name)	{name, sizeof(name) - 1, "\"" name "\": ", sizeof("\"" name "\": ") - 1}

static const Member members[MEMBERS] = {
	MEMBER("id"), MEMBER("time"), MEMBER("detail"), MEMBER("region"), MEMBER("source"), MEMBER("account"),
	MEMBER("version"), MEMBER("resources"), MEMBER("detail-type"), MEMBER("replay-name")
};

/* Only the first entry needs an offset, see JB_OFFSET_STRIDE. */
StaticAssertDecl(2 * MEMBERS <= JB_OFFSET_STRIDE, "an envelope has few members");

/* What an envelope is made of. */
typedef struct Parts
{
	char		id[MP_UUID_TEXT];
	char		time[MP_TIME_TEXT];
	Jsonb	   *detail;
	text	   *region;
	text	   *source;
	text	   *account;
	Datum	   *resources;
	int			resource_count;
	Size		resources_size; /* with headers and padding */
	text	   *detail_type;
	const text *replay_name;
} Parts;

typedef struct Writer
{
	char	   *start;			/* of the jsonb, header included */
	char	   *next;			/* where the next byte goes */
	JEntry	   *entry;			/* of the next name or value */
	char	   *data;			/* what offsets count from */
	int			index;			/* of that entry in its container */
} Writer;

PG_FUNCTION_INFO_V1(mp_envelope);

/* Some time before 1970 or in the year 12000 makes no difference here: 27 characters. */
void
mp_format_time(TimestampTz time, char text[MP_TIME_TEXT])
{
	struct pg_tm tm;
	fsec_t		fsec;
	char	   *p = text;

	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0 || tm.tm_year < 0 || tm.tm_year > 9999)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	p = pg_ultostr_zeropad(p, tm.tm_year, 4);
	*p++ = '-';
	p = pg_ultostr_zeropad(p, tm.tm_mon, 2);
	*p++ = '-';
	p = pg_ultostr_zeropad(p, tm.tm_mday, 2);
	*p++ = 'T';
	p = pg_ultostr_zeropad(p, tm.tm_hour, 2);
	*p++ = ':';
	p = pg_ultostr_zeropad(p, tm.tm_min, 2);
	*p++ = ':';
	p = pg_ultostr_zeropad(p, tm.tm_sec, 2);
	*p++ = '.';
	p = pg_ultostr_zeropad(p, fsec, 6);
	*p++ = 'Z';
	Assert(p - text == MP_TIME_TEXT);
}

void
mp_format_uuid(const pg_uuid_t *id, char text[MP_UUID_TEXT])
{
	static const char digits[] = "0123456789abcdef";
	char	   *p = text;

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[id->data[i] >> 4];
		*p++ = digits[id->data[i] & 15];
	}
}

/* Closes the entry of what has been written since `from`. */
static void
end_entry(Writer *writer, uint32 type, const char *from)
{
	if (writer->index % JB_OFFSET_STRIDE == 0)
		*writer->entry = type | JENTRY_HAS_OFF | (uint32) (writer->next - writer->data);
	else
		*writer->entry = type | (uint32) (writer->next - from);
	writer->entry++;
	writer->index++;
}

static void
write_string(Writer *writer, const char *text, size_t len)
{
	char	   *from = writer->next;

	memcpy(writer->next, text, len);
	writer->next += len;
	end_entry(writer, JENTRY_ISSTRING, from);
}

static void
write_text(Writer *writer, const text *value)
{
	write_string(writer, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* The length of the padding is that of an offset from the jsonb's start. */
static void
pad(Writer *writer)
{
	while ((writer->next - writer->start) % sizeof(uint32) != 0)
		*writer->next++ = 0;
}

static void
write_container(Writer *writer, const JsonbContainer *container, size_t len)
{
	char	   *from = writer->next;

	pad(writer);
	memcpy(writer->next, container, len);
	writer->next += len;
	end_entry(writer, JENTRY_ISCONTAINER, from);
}

static void
write_text_array(Writer *writer, const Datum *texts, int count)
{
	char	   *from = writer->next;
	Writer		array = *writer;

	pad(&array);
	*(uint32 *) array.next = JB_FARRAY | count;
	array.entry = (JEntry *) (array.next + sizeof(uint32));
	array.data = (char *) (array.entry + count);
	array.next = array.data;
	array.index = 0;
	for (int i = 0; i < count; i++)
		write_text(&array, DatumGetTextPP(texts[i]));
	writer->next = array.next;
	end_entry(writer, JENTRY_ISCONTAINER, from);
}

static void
take_apart(const MpEvent *event, const text *replay_name, Parts *parts)
{
	ArrayType  *resources = DatumGetArrayTypeP(event->values[MP_EVENT_RESOURCES]);

	mp_format_uuid(DatumGetUUIDP(event->values[MP_EVENT_ID]), parts->id);
	mp_format_time(DatumGetTimestampTz(event->values[MP_EVENT_TIME]), parts->time);
	parts->detail = DatumGetJsonbP(event->values[MP_EVENT_DETAIL]);
	parts->region = DatumGetTextPP(event->values[MP_EVENT_REGION]);
	parts->source = DatumGetTextPP(event->values[MP_EVENT_SOURCE]);
	parts->account = DatumGetTextPP(event->values[MP_EVENT_ACCOUNT]);
	parts->detail_type = DatumGetTextPP(event->values[MP_EVENT_DETAIL_TYPE]);
	parts->replay_name = replay_name;
	parts->resource_count = 0;
	parts->resources_size = VARSIZE_ANY(resources);
	if (ARR_NDIM(resources) > 0)
		deconstruct_array(resources, TEXTOID, -1, false, TYPALIGN_INT, &parts->resources, NULL, &parts->resource_count);
}

Jsonb *
mp_event_envelope(const MpEvent *event, const text *replay_name)
{
	int			count = replay_name ? MEMBERS : MEMBERS - 1;
	size_t		detail_len;
	size_t		size;
	Parts		parts;
	Writer		writer;

	take_apart(event, replay_name, &parts);
	detail_len = VARSIZE(parts.detail) - VARHDRSZ;

	/* Never too small: the array's own padding and headers stand for ours. */
	size = VARHDRSZ + sizeof(uint32) + sizeof(JEntry) * 2 * count + sizeof(parts.id) + sizeof(parts.time) +
		strlen(MP_ENVELOPE_VERSION) + detail_len + VARSIZE_ANY_EXHDR(parts.region) + VARSIZE_ANY_EXHDR(parts.source) +
		VARSIZE_ANY_EXHDR(parts.account) + VARSIZE_ANY_EXHDR(parts.detail_type) + parts.resources_size +
		sizeof(uint32) * (parts.resource_count + 4) + (replay_name ? VARSIZE_ANY_EXHDR(replay_name) : 0);
	for (int i = 0; i < count; i++)
		size += members[i].len;

	writer.start = palloc(size);
	*(uint32 *) (writer.start + VARHDRSZ) = JB_FOBJECT | count;
	writer.entry = (JEntry *) (writer.start + VARHDRSZ + sizeof(uint32));
	writer.data = (char *) (writer.entry + 2 * count);
	writer.next = writer.data;
	writer.index = 0;

	for (int i = 0; i < count; i++)
		write_string(&writer, members[i].name, members[i].len);
	write_string(&writer, parts.id, sizeof(parts.id));
	write_string(&writer, parts.time, sizeof(parts.time));
	write_container(&writer, &parts.detail->root, detail_len);
	write_text(&writer, parts.region);
	write_text(&writer, parts.source);
	write_text(&writer, parts.account);
	write_string(&writer, MP_ENVELOPE_VERSION, strlen(MP_ENVELOPE_VERSION));
	write_text_array(&writer, parts.resources, parts.resource_count);
	write_text(&writer, parts.detail_type);
	if (replay_name)
		write_text(&writer, replay_name);

	Assert((size_t) (writer.next - writer.start) <= size);
	SET_VARSIZE(writer.start, writer.next - writer.start);
	return (Jsonb *) writer.start;
}

/* ------------------------------------------------------------------------
 * As text
 * ------------------------------------------------------------------------ */

static void
print_name(StringInfo out, int member)
{
	mp_json_write(out, member == 0 ? "{" : ", ", member == 0 ? 1 : 2);
	mp_json_write(out, members[member].printed, members[member].printed_len);
}

static void
print_text(StringInfo out, int member, const text *value)
{
	print_name(out, member);
	mp_json_write_string(out, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* What needs no escapes. */
static void
print_plain(StringInfo out, int member, const char *value, size_t len)
{
	print_name(out, member);
	mp_json_write(out, "\"", 1);
	mp_json_write(out, value, len);
	mp_json_write(out, "\"", 1);
}

static void
print_resources(StringInfo out, const Parts *parts)
{
	print_name(out, MEMBER_RESOURCES);
	mp_json_write(out, "[", 1);
	for (int i = 0; i < parts->resource_count; i++)
	{
		text	   *resource = DatumGetTextPP(parts->resources[i]);

		if (i > 0)
			mp_json_write(out, ", ", 2);
		mp_json_write_string(out, VARDATA_ANY(resource), VARSIZE_ANY_EXHDR(resource));
	}
	mp_json_write(out, "]", 1);
}

text *
mp_event_envelope_text(const MpEvent *event, const text *replay_name, StringInfo out)
{
	Parts		parts;

	take_apart(event, replay_name, &parts);
	out->len = VARHDRSZ;		/* which is written at the end */
	print_plain(out, MEMBER_ID, parts.id, sizeof(parts.id));
	print_plain(out, MEMBER_TIME, parts.time, sizeof(parts.time));
	print_name(out, MEMBER_DETAIL);
	mp_json_write_container(out, &parts.detail->root);
	print_text(out, MEMBER_REGION, parts.region);
	print_text(out, MEMBER_SOURCE, parts.source);
	print_text(out, MEMBER_ACCOUNT, parts.account);
	print_plain(out, MEMBER_VERSION, MP_ENVELOPE_VERSION, strlen(MP_ENVELOPE_VERSION));
	print_resources(out, &parts);
	print_text(out, MEMBER_DETAIL_TYPE, parts.detail_type);
	if (replay_name)
		print_text(out, MEMBER_REPLAY_NAME, replay_name);
	mp_json_write(out, "}", 1);
	SET_VARSIZE(out->data, out->len);
	return (text *) out->data;
}

Datum
mp_envelope(PG_FUNCTION_ARGS)
{
	MpEvent		event;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (!mp_event_from_row(PG_GETARG_HEAPTUPLEHEADER(0), &event))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(mp_event_envelope(&event, NULL));
}
